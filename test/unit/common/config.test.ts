import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { ConfigError, loadConfig, requireSection, workflowSettings } from '../../../common/config.ts';
import { ENVIRONMENT, TOKEN, faultsOf } from './support/config.ts';

describe('loadConfig', () => {
  let directory: string;
  const file = (text: string) => {
    const name = path.join(directory, 'settings.yaml');
    writeFileSync(name, text);
    return name;
  };

  before(() => {
    directory = mkdtempSync(path.join(os.tmpdir(), 'brushwork-config-'));
  });
  after(() => rmSync(directory, { recursive: true }));

  it('needs nothing beside the environment: temporal.yaml has every default', () => {
    const config = loadConfig({ env: ENVIRONMENT });
    assert.equal(config.temporal.address, 'localhost:7233');
    assert.deepEqual(config.queues, { control: 'brushwork', pods: 'brushwork-pods' });
    assert.equal(config.limits.holdPod.heartbeatMs, 20_000);
    assert.equal(config.limits.holdPod.scheduleToStartMs, null);
    assert.equal(config.limits.trainEpochChunk.retry.maximumAttempts, 1);
    assert.equal(config.limits.notify.retry.maximumAttempts, null);
    assert.equal(config.rabbitmq?.url, 'amqp://guest:guest@mq.example.com:5672');
    assert.equal(config.rabbitmq.deadQueue, 'model_training.dead');
    assert.deepEqual(config.backend, {
      allowedOrigins: ['https://api.example.com'],
      token: TOKEN,
      timeoutMs: 10_000,
      progressIntervalMs: 30_000,
    });
    assert.deepEqual(config.training.recipe, {
      seed: 0,
      rank: 16,
      alpha: 32,
      dropout: 0.1,
      optimizer: 'adamw',
      lrScheduler: 'constant',
      lrWarmupSteps: 0,
      weightDecay: 0.01,
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
    assert.equal(config.trainer.device, 'auto');
    assert.deepEqual(config.trainer.hub, { endpoint: 'https://huggingface.co', token: null });
    assert.equal(config.storage?.endpoint, null);
  });

  it('reads what contact sheets show and what they may cost', () => {
    const previews = (text: string) => loadConfig({ env: ENVIRONMENT, file: file(text) }).previews;
    const { sheet, enabled, maxShare, timeLimitMs } = previews('previews: { prompts: [a hill], size: 256, steps: 5 }');
    assert.deepEqual([sheet.prompts, sheet.sidePx, sheet.stepCount], [['a hill'], 256, 5]);
    assert.deepEqual([enabled, maxShare, timeLimitMs], [true, 0.05, 60_000]);
    assert.equal(previews('previews: { size: none }').sheet.sidePx, null);
    for (const [text, complaint] of [
      ['{ prompts: [] }', /previews\.prompts must be 1 to 16/],
      ['{ prompts: [" "] }', /previews\.prompts must be 1 to 16/],
      ['{ size: 100 }', /previews\.size is 100: set it to a multiple of 64/],
      ['{ enabled: yes }', /previews\.enabled must be true or false/],
      ['{ sampler: euler }', /previews\.sampler must be one of dpm\+\+, ddim/],
      ['{ maxShare: 5 }', /previews\.maxShare must be a number from 0 to 1/],
      ['{ timeLimit: 0s }', /previews\.timeLimit must be a duration .*at least 1s.*, but is "?0s/],
    ] as const) {
      assert.throws(() => previews(`previews: ${text}`), complaint);
    }
  });

  it('prints three lines for three faults, each naming the setting', () => {
    const env = { ...ENVIRONMENT, INTERNAL_API_TOKEN: 'short', RABBITMQ_PORT: 'five', LOG_LEVEL: 'loud' };
    let message = '';
    try {
      loadConfig({ env });
    } catch (error) {
      message = (error as Error).message;
    }
    const lines = message.split('\n');
    assert.equal(lines[0], 'The configuration has 3 faults:');
    assert.equal(lines.length, 4);
    for (const name of ['INTERNAL_API_TOKEN', 'RABBITMQ_PORT', 'LOG_LEVEL']) {
      assert.equal(lines.filter((line) => line.includes(name)).length, 1, name);
    }
  });

  it('never shows a secret in a fault', () => {
    const env = { ...ENVIRONMENT, INTERNAL_API_TOKEN: 'topsecret', RABBITMQ_URL: 'http://u:topsecret@mq' };
    const faults = faultsOf({ env });
    assert.equal(faults.length, 2);
    assert.ok(!faults.join().includes('topsecret'), faults.join());
  });

  describe('demands of each role only what it needs', () => {
    const without = (...names: string[]) =>
      Object.fromEntries(Object.entries(ENVIRONMENT).filter(([name]) => !names.includes(name)));

    it('a bridge gets by without bucket, base model and token', () => {
      const env = without(
        'AWS_ACCESS_KEY_ID',
        'AWS_SECRET_ACCESS_KEY',
        'S3_BUCKET',
        'BASE_MODEL',
        'INTERNAL_API_TOKEN',
      );
      const config = loadConfig({ env, roles: ['bridge'] });
      assert.deepEqual([config.storage, config.pod, config.backend.token], [null, null, null]);
    });

    it('a bridge does not hold the token even where it is set', () => {
      assert.equal(loadConfig({ env: ENVIRONMENT, roles: ['bridge'] }).backend.token, null);
    });

    it('a control worker gets by without RabbitMQ and base model', () => {
      const config = loadConfig({ env: without('RABBITMQ_HOST', 'BASE_MODEL'), roles: ['control'] });
      assert.deepEqual([config.rabbitmq, config.pod], [null, null]);
      assert.throws(() => requireSection(config, 'pod'), ConfigError);
    });

    it('a pod gets by without RabbitMQ', () => {
      assert.equal(loadConfig({ env: without('RABBITMQ_HOST'), roles: ['pod'] }).pod?.baseModel, '/models/sd15');
    });

    for (const name of Object.keys(ENVIRONMENT)) {
      it(`all roles together miss ${name}`, () => {
        const faults = faultsOf({ env: without(name) });
        assert.equal(faults.length, 1);
        assert.match(faults[0] ?? '', new RegExp(name));
      });
    }
  });

  describe('base model of a command', () => {
    const command = (env: Record<string, string>, model: string | null = null) => ({ env, roles: [], model });
    const keys = { AWS_ACCESS_KEY_ID: 'key', AWS_SECRET_ACCESS_KEY: 'secret' };

    it('is what its command line names, or else BASE_MODEL', () => {
      const env = { BASE_MODEL: 'org/name' };
      assert.deepEqual(loadConfig(command(env, 'model')).baseModel, { source: 'model', store: null });
      assert.deepEqual(loadConfig(command(env)).baseModel, { source: 'org/name', store: null });
      assert.equal(loadConfig(command({})).baseModel, null);
      assert.equal(loadConfig({ env, roles: [] }).baseModel, null, 'a command that needs none');
    });

    it('comes with the store where it lies in a bucket, of which it needs no bucket of ours', () => {
      const env = { ...keys, AWS_ENDPOINT_URL: 'https://s3.example.com', BASE_MODEL: 's3://models/sd15' };
      const { baseModel, storage } = loadConfig(command(env));
      assert.deepEqual([baseModel?.store?.endpoint, baseModel?.store?.accessKeyId], ['https://s3.example.com', 'key']);
      assert.equal(storage, null);
    });

    it('says which keys are missing for a bucket, whoever names it', () => {
      const expected = [
        'AWS_ACCESS_KEY_ID is not set: set it to the access key of the bucket of the base model s3://models/sd15.',
        'AWS_SECRET_ACCESS_KEY is not set: set it to the secret key that belongs to AWS_ACCESS_KEY_ID.',
      ];
      assert.deepEqual(faultsOf(command({}, 's3://models/sd15')), expected);
      assert.deepEqual(faultsOf(command({ BASE_MODEL: 's3://models/sd15' })), expected);
      assert.deepEqual(faultsOf(command({}, '/models/sd15')), []);
    });
  });

  describe('file', () => {
    it('changes only what it names', () => {
      const name = file(
        'activities:\n  holdPod: { heartbeat: 10s }\nworkflow: { chunkEpochs: 5 }\npod: { beat: 2s }\n',
      );
      const config = loadConfig({ env: ENVIRONMENT, file: name });
      assert.equal(config.limits.holdPod.heartbeatMs, 10_000);
      assert.equal(config.limits.holdPod.startToCloseMs, 72 * 3_600_000);
      assert.equal(config.workflow.chunkEpochs, 5);
    });

    it('is found through BRUSHWORK_CONFIG', () => {
      const name = file('queues: { pods: other-pods }\n');
      assert.equal(loadConfig({ env: { ...ENVIRONMENT, BRUSHWORK_CONFIG: name } }).queues.pods, 'other-pods');
    });

    it('adds allowed backends as origins', () => {
      const name = file('backend: { allowedOrigins: ["https://staging.example.com/x"] }\n');
      const { allowedOrigins } = loadConfig({ env: ENVIRONMENT, file: name }).backend;
      assert.deepEqual(allowedOrigins, ['https://api.example.com', 'https://staging.example.com']);
    });

    const refusals: [string, string, RegExp][] = [
      ['a misspelt setting', 'workflow: { chunkEpoch: 5 }', /chunkEpoch is not a setting; did you mean chunkEpochs/],
      ['a misspelt section', 'workflows: {}', /workflows is not a setting; did you mean workflow/],
      ['a duration without unit', 'backend: { timeout: 10 }', /backend\.timeout must be a duration/],
      ['an unknown recipe key', 'training: { recipe: { rnak: 8 } }', /unknown key "rnak" \(did you mean "rank"\?\)/],
      [
        'an early stop without a validation',
        'training: { recipe: { early_stop_patience: 3 } }',
        /training\.recipe: early_stop_patience is 3, but validation_pictures is 0/,
      ],
      [
        'a learning rate of a text encoder that is not trained',
        'training: { recipe: { text_encoder_learning_rate: 0.00005 } }',
        /training\.recipe: text_encoder_learning_rate is 0\.00005, but train_text_encoder is false/,
      ],
      ['a recipe value out of range', 'training: { recipe: { dropout: 2 } }', /dropout must be a number from 0 to 0.9/],
      ['a list where a section belongs', 'pod: [1]', /pod must be a mapping/],
      ['a fence shorter than the hold', 'pod: { fence: 20s }', /pod\.fence must be longer/],
      [
        'a throttle longer than heartbeats may be apart',
        'pod: { heartbeatThrottle: 8s }',
        /pod\.heartbeatThrottle must be at most a third of activities\.holdPod\.heartbeat, or/,
      ],
      ['one queue for control workers and pods', 'queues: { pods: brushwork }', /queues\.pods must be another queue/],
      ['the queue of pictures for pods', 'queues: { pods: brushwork-pictures }', /queues\.pods must be another queue/],
      ['beats too far apart', 'pod: { beat: 10s }', /pod\.beat must be at most a third/],
      ['a webhook try that is cut off', 'backend: { timeout: 20s }', /notify\.startToClose must be longer/],
      [
        'another type for a search attribute',
        'searchAttributes: { TrainEpoch: Keyword }',
        /TrainEpoch must be one of Int/,
      ],
      ['broken YAML', 'pod: {', /settings\.yaml can't be used/],
    ];
    for (const [what, text, expected] of refusals) {
      it(`refuses ${what}`, () => {
        const faults = faultsOf({ env: ENVIRONMENT, file: file(text) });
        assert.ok(
          faults.some((fault) => expected.test(fault)),
          faults.join('\n'),
        );
      });
    }

    it('names what two sections contradict each other in together with other faults', () => {
      const name = file('pod: { fence: 20s }\nbackend: { timeout: 20s }\nbridge: { prefetch: 0 }\n');
      const faults = faultsOf({ env: { ...ENVIRONMENT, LOG_LEVEL: 'loud' }, file: name });
      assert.equal(faults.length, 4, faults.join('\n'));
      for (const setting of ['pod.fence', 'notify.startToClose', 'bridge.prefetch', 'LOG_LEVEL']) {
        assert.ok(
          faults.some((fault) => fault.includes(setting)),
          setting,
        );
      }
    });

    it('compares nothing with a section that is wrong by itself', () => {
      const faults = faultsOf({ env: ENVIRONMENT, file: file('pod: { fence: 20 }\nbackend: [1]\n') });
      assert.ok(!faults.some((fault) => /must be longer/.test(fault)), faults.join('\n'));
    });

    it('refuses a list or a number in one sentence', () => {
      for (const text of ['- a', '42']) {
        const file = path.join(directory, 'list.yaml');
        writeFileSync(file, text);
        const [fault = '', ...others] = faultsOf({ env: {}, file });
        assert.match(fault, /list\.yaml must hold settings by their names/);
        assert.deepEqual(others, []);
      }
    });

    it('says which file is missing, and nothing else', () => {
      const faults = faultsOf({ env: {}, file: path.join(directory, 'none.yaml') });
      assert.equal(faults.length, 1);
      assert.match(faults[0] ?? '', /none\.yaml/);
    });
  });
});

describe('workflowSettings', () => {
  it('is plain JSON without secrets', () => {
    const config = loadConfig({ env: ENVIRONMENT });
    const settings = workflowSettings(config, true);
    const text = JSON.stringify(settings);
    assert.deepEqual(JSON.parse(text), settings);
    assert.ok(!text.includes(TOKEN) && !text.includes('secret'));
    assert.equal(settings.podsQueue, 'brushwork-pods');
    assert.equal(settings.chunkEpochs, 10);
    assert.equal(workflowSettings(config, false).searchAttributes, false);
  });
});
