import assert from 'node:assert/strict';
import { InvalidRequestError } from '../../../common/errors.ts';
import { TRAINING_CONFIG_KEYS } from '../../../common/training-config-keys.ts';
import {
  checkResolution,
  completeTrainingConfig,
  defaultEpochs,
  parseTrainingConfig,
  trainingConfigFor,
  trainingConfigJson,
} from '../../../common/training-config.ts';
import type { TrainingConfig } from '../../../common/types.ts';

const NOTHING = { epochs: null, learningRate: null, batchSize: null };

describe('parseTrainingConfig', () => {
  it('reads every key', () => {
    const json = {
      seed: 7,
      rank: 8,
      alpha: 16,
      dropout: 0,
      optimizer: 'lion',
      learning_rate: 0.001,
      lr_scheduler: 'cosine',
      lr_warmup_steps: 10,
      weight_decay: 0.02,
      epochs: 30,
      batch_size: 2,
      gradient_accumulation: 4,
      max_grad_norm: 1,
      min_snr_gamma: 5,
      noise_offset: 0.05,
      ema_decay: 0.99,
      flip: true,
      caption_dropout: 0.1,
      train_text_encoder: true,
      text_encoder_learning_rate: 0.00005,
      mixed_precision: 'bf16',
      resolution: 256,
      resize_mode: 'stretch',
      repeats: 3,
      trigger_word: 'ink wash',
      validation_pictures: 2,
      validation_every_epochs: 3,
      early_stop_patience: 4,
      early_stop_min_delta: 0.01,
      gradient_checkpointing: true,
    };
    assert.deepEqual(Object.keys(json), Object.keys(TRAINING_CONFIG_KEYS));
    const config = trainingConfigFor(NOTHING, parseTrainingConfig(json), {
      imageCount: 12,
      mixedPrecisionDefault: 'no',
    });
    assert.deepEqual(config, {
      seed: 7,
      rank: 8,
      alpha: 16,
      dropout: 0,
      optimizer: 'lion',
      learningRate: 0.001,
      lrScheduler: 'cosine',
      lrWarmupSteps: 10,
      weightDecay: 0.02,
      epochs: 30,
      batchSize: 2,
      gradientAccumulation: 4,
      maxGradNorm: 1,
      minSnrGamma: 5,
      noiseOffset: 0.05,
      emaDecay: 0.99,
      flip: true,
      captionDropout: 0.1,
      trainTextEncoder: true,
      textEncoderLearningRate: 0.00005,
      mixedPrecision: 'bf16',
      resolutionPx: 256,
      resizeMode: 'stretch',
      repeats: 3,
      triggerWord: 'ink wash',
      validationPictures: 2,
      validationEveryEpochs: 3,
      earlyStopPatience: 4,
      earlyStopMinDelta: 0.01,
      gradientCheckpointing: true,
    });
    assert.deepEqual(trainingConfigJson(config), json);
  });

  it('names an unknown key and the nearest known one', () => {
    assert.throws(() => parseTrainingConfig({ learning_rte: 1 }), {
      name: 'InvalidRequestError',
      message: /unknown key "learning_rte" \(did you mean "learning_rate"\?\)/,
    });
  });

  it('quotes a number that is too great for any as a number', () => {
    const json: unknown = JSON.parse('{"epochs": 1e400}');
    assert.throws(() => parseTrainingConfig(json), /epochs must be a whole number from 1 to 1000, but is Infinity\./);
  });

  it('lists all keys where none is near', () => {
    assert.throws(() => parseTrainingConfig({ colour: 'red' }), /unknown key "colour" \(known: seed, rank/);
  });

  it('is not fooled by names that every object has', () => {
    assert.throws(
      () => parseTrainingConfig(JSON.parse('{"__proto__": 1, "constructor": 2}')),
      (error: Error) => {
        return /unknown key "__proto__"/.test(error.message) && /unknown key "constructor"/.test(error.message);
      },
    );
  });

  it('names all faults at once', () => {
    assert.throws(
      () => parseTrainingConfig({ rank: 0, alpha: '32', nope: 1 }),
      (error: Error) => {
        return (
          error instanceof InvalidRequestError && ['rank', 'alpha', 'nope'].every((key) => error.message.includes(key))
        );
      },
    );
  });

  const refused: Record<string, unknown[]> = {
    seed: [-1, 0.5, 2 ** 53, null, '0'],
    rank: [0, 257, 1.5],
    alpha: [0, Infinity, NaN],
    dropout: [-0.1, 1],
    learning_rate: [0, 2, '1e-4'],
    gradient_checkpointing: [1, 'true', null],
    epochs: [0, 1001, null],
    batch_size: [0, 17],
    gradient_accumulation: [0, 65],
    max_grad_norm: [0, -1, 'none'],
    optimizer: ['adam', null, 1],
    lr_scheduler: ['polynomial', null],
    lr_warmup_steps: [-1, 0.5, null],
    min_snr_gamma: [0, '5'],
    noise_offset: [-0.1, 1.1, null],
    ema_decay: [-0.1, 1],
    flip: [1, 'true', null],
    caption_dropout: [-0.1, 1.1],
    mixed_precision: ['fp32', null, 16],
    resolution: [63, 100, 1032],
  };
  for (const [key, values] of Object.entries(refused)) {
    for (const value of values) {
      it(`refuses ${key}: ${String(value)}`, () => {
        assert.throws(() => parseTrainingConfig({ [key]: value }), new RegExp(`${key} must be`));
      });
    }
  }

  for (const value of [null, [], 'x', 3]) {
    it(`refuses ${JSON.stringify(value)} as a whole`, () => {
      assert.throws(() => parseTrainingConfig(value), InvalidRequestError);
    });
  }
});

describe('trainingConfigFor', () => {
  it('takes the message over the configuration over the table', () => {
    const parameters = { epochs: 120, learningRate: null, batchSize: 2 };
    const config = trainingConfigFor(
      parameters,
      { epochs: 50, learningRate: 5e-5 },
      { imageCount: 20, mixedPrecisionDefault: 'fp16' },
    );
    assert.deepEqual(
      [config.epochs, config.learningRate, config.batchSize, config.rank, config.mixedPrecision],
      [120, 5e-5, 2, 16, 'fp16'],
    );
  });

  it('has the contract defaults', () => {
    const config = trainingConfigFor(NOTHING, {}, { imageCount: 20, mixedPrecisionDefault: 'no' });
    assert.deepEqual(config, {
      seed: 0,
      rank: 16,
      alpha: 32,
      dropout: 0.1,
      optimizer: 'adamw',
      learningRate: 1e-4,
      lrScheduler: 'constant',
      lrWarmupSteps: 0,
      weightDecay: 0.01,
      epochs: 200,
      batchSize: 1,
      gradientAccumulation: 1,
      maxGradNorm: null,
      minSnrGamma: null,
      noiseOffset: 0,
      emaDecay: null,
      flip: false,
      captionDropout: 0,
      trainTextEncoder: false,
      textEncoderLearningRate: null,
      mixedPrecision: 'no',
      resolutionPx: 512,
      resizeMode: 'crop',
      repeats: 1,
      triggerWord: null,
      validationPictures: 0,
      validationEveryEpochs: 5,
      earlyStopPatience: null,
      earlyStopMinDelta: 0,
      gradientCheckpointing: false,
    });
  });

  for (const [optimizer, learningRate] of [
    ['adamw', 1e-4],
    ['lion', 3e-5],
    ['prodigy', 1],
  ] as const) {
    it(`gives ${optimizer} its own learning rate where none is set`, () => {
      const context = { imageCount: 20, mixedPrecisionDefault: 'no' } as const;
      assert.equal(trainingConfigFor(NOTHING, { optimizer }, context).learningRate, learningRate);
      const asked = { ...NOTHING, learningRate: 0.002 };
      assert.equal(trainingConfigFor(asked, { optimizer }, context).learningRate, 0.002);
      assert.equal(trainingConfigFor(NOTHING, { optimizer, learningRate: 0.003 }, context).learningRate, 0.003);
    });
  }

  it('refuses a resolution that the base model can not take, but for buckets', () => {
    const model = { name: 'sd15', sideMultiplePx: 64 };
    const refused = {
      code: 'INVALID_REQUEST',
      message: /resolution is 520, but pictures for sd15 .* 64 px: set it to 512/,
    };
    assert.throws(() => checkResolution({ resolutionPx: 520, resizeMode: 'crop' }, model), refused);
    checkResolution({ resolutionPx: 576, resizeMode: 'stretch' }, model);
    checkResolution({ resolutionPx: 520, resizeMode: 'bucket' }, model);
  });

  it('refuses parameters out of range', () => {
    const context = { imageCount: 20, mixedPrecisionDefault: 'no' } as const;
    assert.throws(() => trainingConfigFor({ ...NOTHING, epochs: 0 }, {}, context), /The job message.*epochs/);
  });
});

describe('completeTrainingConfig', () => {
  it('takes what an older version did not know at its default and leaves the rest alone', () => {
    const config = trainingConfigFor(NOTHING, { rank: 8, dropout: 0 }, { imageCount: 20, mixedPrecisionDefault: 'no' });
    const older: Partial<TrainingConfig> = { ...config };
    for (const { field, inFingerprint } of Object.values(TRAINING_CONFIG_KEYS)) {
      if (inFingerprint !== 'always') delete older[field];
    }
    assert.ok(!('optimizer' in older));
    assert.deepEqual(completeTrainingConfig(older as TrainingConfig), config);
    const used = { ...config, optimizer: 'lion', emaDecay: 0.9, flip: true } as const;
    assert.deepEqual(completeTrainingConfig(used), used);
  });
});

describe('defaultEpochs', () => {
  const expected: [number, number][] = [
    [1, 500],
    [8, 500],
    [10, 400],
    [12, 330],
    [20, 200],
    [30, 130],
    [40, 100],
    [100, 100],
  ];
  for (const [imageCount, epochs] of expected) {
    it(`is ${epochs} for ${imageCount} pictures`, () => {
      assert.equal(defaultEpochs(imageCount), epochs);
    });
  }
});
