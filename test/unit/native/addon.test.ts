import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { InvalidRequestError } from '../../../common/errors.ts';
import type { NativeStepReport } from '../../../native/native.ts';
import {
  SIDE_PX,
  addon,
  addonForAllTests,
  directory,
  image,
  job,
  modelDirectory,
  sampleOptions,
  trainer,
} from './support/addon.ts';

const EXIT_SCRIPT = fileURLToPath(new URL('./addon-exit.ts', import.meta.url));

describe('native addon', function () {
  addonForAllTests(this);

  it('says what it runs on', () => {
    const { torch, cuda, gpuName, gpuMemoryMiB } = addon.runtimeInfo();
    assert.match(torch, /^2\.1[1-3]\.\d+/);
    assert.equal(gpuName === null, cuda === null);
    assert.equal(gpuMemoryMiB === null, cuda === null);
  });

  it('describes the base model that it loads', async () => {
    const info = await trainer.loadBaseModel({ directory: modelDirectory, mixedPrecision: 'no', lora: null });
    assert.ok(info.unetParameterCount > 100_000);
    assert.deepEqual(info, {
      unetParameterCount: info.unetParameterCount,
      loraModuleCount: 32,
      vaeScaleFactorPx: 4,
      textTokenCount: 77,
      predictionType: 'epsilon',
    });
  });

  it('reports each micro-step in order before train() resolves', async () => {
    await trainer.startJob(job());
    const reports: NativeStepReport[] = [];
    const result = await trainer.train(3, (report) => reports.push(report));
    assert.deepEqual(result, {
      position: { epochsRun: 3, microStepsRun: 6, optimizerStepsRun: 6 },
      stopped: false,
    });
    assert.deepEqual(
      reports.map(({ step, epoch }) => [step, epoch]),
      [0, 1, 2, 3, 4, 5].map((step) => [step, Math.floor(step / 2)]),
    );
    for (const report of reports) {
      assert.ok(report.loss > 0 && report.durationMs > 0);
      assert.equal(report.learningRate, 1e-3);
      assert.equal(report.timesteps.length, 1);
    }
  });

  it('leaves the event loop free while it trains', async () => {
    await trainer.startJob(job());
    let ticks = 0;
    const timer = setInterval(() => ticks++, 5);
    const start = performance.now();
    await trainer.train(15, () => undefined);
    const elapsedMs = performance.now() - start;
    clearInterval(timer);
    assert.ok(ticks >= elapsedMs / 50, `${ticks} ticks in ${elapsedMs} ms`);
  });

  it('stops within one step', async () => {
    await trainer.startJob(job());
    let stepAtStop = -1;
    let last = -1;
    const training = trainer.train(1000, ({ step }) => (last = step));
    while (last < 3) await sleep(1);
    trainer.stop();
    stepAtStop = last;
    const result = await training;
    assert.equal(result.stopped, true);
    // One step may have been under way, and one more report may have been on its way to this thread.
    assert.ok(result.position.microStepsRun <= stepAtStop + 3, `stopped at ${result.position.microStepsRun}`);
    assert.equal(result.position.microStepsRun, last + 1);
  });

  it('goes on after a stop', async () => {
    const { position } = await trainer.train(10, () => undefined);
    assert.equal(position.epochsRun, 10);
  });

  it('measures held-out pictures, which changes nothing else', async () => {
    await trainer.startJob(job());
    await assert.rejects(trainer.validate(), { code: 'INVALID_REQUEST', message: /holds no pictures out/ });
    await trainer.train(2, () => undefined);
    const plain = path.join(directory, 'plain.safetensors');
    await trainer.saveCheckpoint(plain);

    await trainer.startJob({ ...job(), validationImages: [image(2), image(3)] });
    const before = await trainer.validate();
    assert.ok(before !== null && before > 0);
    await trainer.train(1, () => undefined);
    const between = await trainer.validate();
    assert.notEqual(between, before);
    assert.equal(await trainer.validate(), between);
    await trainer.train(2, () => undefined);
    const validated = path.join(directory, 'validated.safetensors');
    await trainer.saveCheckpoint(validated);
    assert.deepEqual(readFileSync(validated), readFileSync(plain));

    const stopped = trainer.validate();
    trainer.stop();
    assert.equal(await stopped, null);
  });

  it('resumes from a checkpoint to byte-identical weights', async () => {
    const finish = async (name: string) => {
      await trainer.train(4, () => undefined);
      const output = path.join(directory, name);
      await trainer.exportWeights({ directory: output, baseModelName: 'tiny', resolutionPx: SIDE_PX });
      return ['lora_weights.safetensors', 'peft/adapter_model.safetensors', 'kohya.safetensors'].map((file) =>
        readFileSync(path.join(output, file)),
      );
    };
    const checkpoint = path.join(directory, 'checkpoint.safetensors');
    await trainer.startJob(job());
    await trainer.train(2, () => undefined);
    assert.equal((await trainer.saveCheckpoint(checkpoint)).epochsRun, 2);
    const expected = await finish('undisturbed');
    await trainer.startJob(job());
    assert.deepEqual(await trainer.restore(checkpoint), { epochsRun: 2, microStepsRun: 4, optimizerStepsRun: 4 });
    assert.deepEqual(await finish('resumed'), expected);
  });

  describe('options of the recipe', () => {
    /** Losses and weights of a short training. */
    async function outcomeOf(changes: Parameters<typeof job>[0]): Promise<{ losses: number[]; weights: Buffer }> {
      const losses: number[] = [];
      // Without dropout, so that nothing but the option makes a difference.
      await trainer.startJob(job({ dropout: 0, learningRate: 1e-2, epochs: 4, ...changes }));
      await trainer.train(4, ({ loss }) => losses.push(loss));
      const output = path.join(directory, 'option');
      await trainer.exportWeights({ directory: output, baseModelName: 'tiny', resolutionPx: SIDE_PX });
      return { losses, weights: readFileSync(path.join(output, 'lora_weights.safetensors')) };
    }

    for (const changes of [
      { optimizer: 'lion' },
      { optimizer: 'prodigy', learningRate: 1 },
      { lrScheduler: 'linear' },
      { lrScheduler: 'cosine' },
      { lrWarmupSteps: 3 },
      { minSnrGamma: 1 },
      { noiseOffset: 0.2 },
      { flip: true },
      { captionDropout: 0.9 },
      { trainTextEncoder: true },
    ] as const) {
      it(`${JSON.stringify(changes)} changes the training`, async () => {
        const plain = await outcomeOf({});
        const changed = await outcomeOf(changes);
        assert.notDeepEqual(changed.losses, plain.losses);
        assert.notDeepEqual(changed.weights, plain.weights);
        assert.deepEqual(await outcomeOf(changes), changed);
      });
    }

    it('textEncoderLearningRate counts where the text encoder is trained', async () => {
      const rate = { textEncoderLearningRate: 1e-3 };
      const trained = await outcomeOf({ trainTextEncoder: true });
      assert.notDeepEqual(await outcomeOf({ trainTextEncoder: true, ...rate }), trained);
      assert.deepEqual(await outcomeOf(rate), await outcomeOf({}));
    });

    it('emaDecay changes the exported weights, not the training', async () => {
      const plain = await outcomeOf({});
      const averaged = await outcomeOf({ emaDecay: 0.9 });
      assert.deepEqual(averaged.losses, plain.losses);
      assert.notDeepEqual(averaged.weights, plain.weights);
    });

    it('reports the learning rate of each step', async () => {
      const rates: number[] = [];
      await trainer.startJob(job({ learningRate: 1e-3, epochs: 3, lrScheduler: 'linear', lrWarmupSteps: 2 }));
      await trainer.train(3, ({ learningRate }) => rates.push(learningRate));
      assert.deepEqual(
        rates.map((rate) => Math.round(rate * 1e9) / 1e9),
        [0, 5e-4, 1e-3, 7.5e-4, 5e-4, 2.5e-4],
      );
    });
  });

  it('draws a picture with and without the LoRA', async () => {
    await trainer.startJob(job({ learningRate: 0.05 }));
    await trainer.train(3, () => undefined);
    const styled = await trainer.sample(sampleOptions());
    assert.equal(styled?.pixels.length, SIDE_PX * SIDE_PX * 3);
    const plain = await trainer.sample({ ...sampleOptions(), lora: 'none' });
    assert.notDeepEqual(plain?.pixels, styled.pixels);
    const other = await trainer.sample({ ...sampleOptions(), sampler: 'ddim' });
    assert.notDeepEqual(other?.pixels, styled.pixels);
    // A file of the same weights gives the same picture, and is forgotten with its base model.
    await trainer.exportWeights({ directory, baseModelName: 'tiny', resolutionPx: SIDE_PX });
    const lora = path.join(directory, 'peft');
    await trainer.loadBaseModel({ directory: modelDirectory, mixedPrecision: 'no', lora });
    const fromFile = await trainer.sample({ ...sampleOptions(), lora: 'file' });
    assert.deepEqual(fromFile?.pixels, styled.pixels);
    // The LoRA is part of the model now: it is no base model any more.
    await assert.rejects(trainer.sample({ ...sampleOptions(), lora: 'none' }), /without one first/);
    await assert.rejects(trainer.startJob(job()), /without one first/);
    await trainer.loadBaseModel({ directory: modelDirectory, mixedPrecision: 'no', lora: null });
    assert.deepEqual((await trainer.sample({ ...sampleOptions(), lora: 'none' }))?.pixels, plain?.pixels);
  });

  it('stops drawing at the next step', async () => {
    const drawing = trainer.sample({ ...sampleOptions(), lora: 'none', stepCount: 900 });
    trainer.stop();
    assert.equal(await drawing, null);
  });

  it('draws with no LoRA of a file before one was loaded', async () => {
    await trainer.loadBaseModel({ directory: modelDirectory, mixedPrecision: 'no', lora: null });
    await assert.rejects(trainer.sample({ ...sampleOptions(), lora: 'file' }), InvalidRequestError);
  });

  it('rejects with what onStep threw, after stopping', async () => {
    await trainer.startJob(job());
    const thrown = new Error('from onStep');
    const training = trainer.train(1000, () => {
      throw thrown;
    });
    await assert.rejects(training, (error) => error === thrown);
  });

  it('rejects with what onStep threw where that is no error', async () => {
    await trainer.startJob(job());
    const training = trainer.train(1000, () => {
      // eslint-disable-next-line @typescript-eslint/only-throw-error
      throw 'from onStep';
    });
    await assert.rejects(training, (error) => error === 'from onStep');
  });

  describe('the end of the process', () => {
    /** Runs addon-exit.ts, which ends in the way that `scenario` names. */
    async function exitWith(scenario: string): Promise<{ stdout: string; elapsedMs: number }> {
      const start = performance.now();
      const { stdout } = await promisify(execFile)(process.execPath, [EXIT_SCRIPT, modelDirectory, scenario], {
        timeout: 30_000,
      });
      return { stdout, elapsedMs: performance.now() - start };
    }

    it('process.exit() in the middle of a training ends it cleanly', async () => {
      const { stdout } = await exitWith('exit');
      assert.match(stdout, /training/);
    });

    it('a worker thread that is terminated in the middle of a training leaves the process whole', async () => {
      const { stdout } = await exitWith('worker');
      assert.match(stdout, /worker ended/);
    });

    it('an idle trainer does not keep the process alive', async () => {
      const { stdout } = await exitWith('idle');
      assert.match(stdout, /idle/);
    });
  });

  it('makes a random base model of both presets', async () => {
    const small = path.join(directory, 'small');
    await addon.writeRandomBaseModel({ directory: small, preset: 'small', seed: 1 });
    for (const file of ['model_index.json', 'unet/config.json', 'vae/config.json', 'text_encoder/config.json']) {
      assert.ok(existsSync(path.join(small, file)), file);
    }
  });
});
