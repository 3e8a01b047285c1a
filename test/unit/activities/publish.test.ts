import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { ActivityCancelledError, ActivityNotFoundError, WorkflowNotFoundError } from '@temporalio/client';
import type { Client } from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { createControlActivities, createPodActivities } from '../../../activities/index.ts';
import type { ControlActivities, PodActivities } from '../../../activities/index.ts';
import { AccessDeniedError } from '../../../common/errors.ts';
import type { PromoteResult, UploadResult } from '../../../common/activity-types.ts';
import { CONFIG, TestPod, quietEnvironment } from './support/pod.ts';

const FILES = ['kohya.safetensors', 'lora_weights.safetensors', 'peft/adapter_model.safetensors'];

describe('upload and promote', () => {
  let pod: TestPod;
  let onPod: PodActivities;
  let control: ControlActivities;

  beforeEach(async () => {
    pod = new TestPod();
    await pod.withPictures(3);
    onPod = createPodActivities(pod.deps);
    control = createControlActivities({ ...pod.deps, uriScheme: 's3', keepFinalCheckpoints: 1 });
  });
  afterEach(() => pod.close());

  function upload(): Promise<UploadResult> {
    const file = `${pod.jobDirectory}/final.safetensors`;
    mkdirSync(pod.jobDirectory, { recursive: true });
    writeFileSync(file, JSON.stringify({ epochsRun: 4, microStepsRun: 12, weights: 'final' }));
    return pod.environment.run(onPod.upload, {
      ...pod.ids,
      jobDirectory: pod.jobDirectory,
      checkpointFile: file,
      config: CONFIG,
      totalSteps: 12,
    });
  }

  function promote({ stagingPrefix, objects }: UploadResult, tryCount = 1): Promise<PromoteResult> {
    return quietEnvironment().run(control.promote, {
      tryCount,
      styleId: 7,
      taskId: 'task',
      stagingPrefix,
      objects,
    });
  }

  it('stages all formats with their sizes and hashes', async () => {
    const { stagingPrefix, objects } = await upload();
    assert.deepEqual(
      objects.map(({ key }) => key.slice(stagingPrefix.length)),
      FILES,
    );
    for (const { key, sizeBytes, sha256 } of objects) {
      assert.equal(pod.store.objects.get(key)?.length, sizeBytes);
      assert.match(sha256, /^[0-9a-f]{64}$/);
    }
  });

  it('restores the final checkpoint where the trainer does not stand at the end', async () => {
    await upload();
    assert.deepEqual(pod.trainer.calls, ['prepare final.safetensors']);
  });

  it('ends a trainer that hangs while it exports', async () => {
    pod.trainer.onExport = () => new Promise(() => undefined);
    await assert.rejects(upload(), (error) => error instanceof ApplicationFailure && error.type === 'TRAINING_STALLED');
    assert.ok(pod.trainer.calls.includes('kill'));
    assert.deepEqual(pod.store.keys('staging/'), []);
  });

  it('uses a prefix of its own for each attempt', async () => {
    assert.notEqual((await upload()).stagingPrefix, (await upload()).stagingPrefix);
  });

  it('puts the weights in their place last and returns their URI', async () => {
    const staged = await upload();
    const copies: string[] = [];
    pod.store.onWrite = (verb, key) => void (verb === 'copy' && copies.push(key));
    const { modelUri } = await promote(staged);
    assert.equal(modelUri, 's3://bucket/models/style_7/lora_weights.safetensors');
    assert.deepEqual(copies.at(-1), 'models/style_7/lora_weights.safetensors');
    assert.deepEqual(
      pod.store.keys('models/'),
      FILES.map((file) => `models/style_7/${file}`),
    );
  });

  it('takes away the text encoder of an earlier training, and no other file', async () => {
    const others = ['models/style_7/preview.png', 'models/style_70/peft_text_encoder/adapter_model.safetensors'];
    for (const key of [...others, 'models/style_7/peft_text_encoder/adapter_model.safetensors']) {
      pod.store.objects.set(key, Buffer.from('old'));
    }
    await promote(await upload());
    const expected = [...FILES.map((file) => `models/style_7/${file}`), ...others].sort();
    assert.deepEqual(pod.store.keys('models/').sort(), expected);
  });

  it('publishes the text encoder where it was trained', async () => {
    const file = 'peft_text_encoder/adapter_model.safetensors';
    pod.trainer.moreWeights = [file];
    const staged = await upload();
    pod.store.objects.set(`models/style_7/peft_text_encoder/adapter_config.json`, Buffer.from('old'));
    await promote(staged);
    // Once more, as after a lost answer: what was published stays.
    await promote(staged);
    assert.deepEqual(pod.store.keys('models/style_7/peft_text_encoder/'), [`models/style_7/${file}`]);
  });

  it('clears the staging area and all checkpoints but the final one', async () => {
    for (const epoch of ['000002', '000004']) {
      pod.store.objects.set(`checkpoints/style_7/task/manifests/epoch-${epoch}.json`, Buffer.from('{}'));
      pod.store.objects.set(`checkpoints/style_7/task/data/epoch-${epoch}-x.safetensors`, Buffer.from('x'));
    }
    await upload();
    await promote(await upload());
    assert.deepEqual(pod.store.keys('staging/'), []);
    assert.deepEqual(pod.store.keys('checkpoints/'), [
      'checkpoints/style_7/task/data/epoch-000004-x.safetensors',
      'checkpoints/style_7/task/manifests/epoch-000004.json',
    ]);
  });

  describe('from a store that does not do the clean-up', () => {
    beforeEach(() => {
      pod.store.deleteAll = () => Promise.reject(new AccessDeniedError('Not now.', { retryable: true }));
    });

    it('is promoted again: a text encoder of an earlier training would lie beside the weights', async () => {
      const staged = await upload();
      await assert.rejects(promote(staged, 1), { type: 'ACCESS_DENIED', nonRetryable: false });
      await assert.rejects(promote(staged, 7), { type: 'ACCESS_DENIED' });
    });

    it('is published after eight tries all the same', async () => {
      const { modelUri } = await promote(await upload(), 8);
      assert.equal(modelUri, 's3://bucket/models/style_7/lora_weights.safetensors');
    });
  });

  it('keeps the pictures of a job for as long as a checkpoint of it', async () => {
    const key = 'checkpoints/style_7/task/pictures/0f';
    for (const [keepFinalCheckpoints, isKept] of [
      [1, true],
      [0, false],
    ] as const) {
      pod.store.objects.set(key, Buffer.from('a picture'));
      control = createControlActivities({ ...pod.deps, uriScheme: 's3', keepFinalCheckpoints });
      await promote(await upload());
      assert.equal(pod.store.objects.has(key), isKept);
    }
  });

  it('may be promoted again after the staging area is gone', async () => {
    const staged = await upload();
    const first = await promote(staged);
    assert.deepEqual(await promote(staged), first);
  });

  it('does not take the weights of another training, of the same size, for its own', async () => {
    const staged = await upload();
    await promote(staged);
    const key = 'models/style_7/lora_weights.safetensors';
    pod.store.objects.set(key, Buffer.alloc(pod.store.objects.get(key)?.length ?? 0));
    await assert.rejects(promote(staged), { type: 'STORAGE_UNAVAILABLE' });
  });

  it('does not announce weights that did not arrive whole', async () => {
    const staged = await upload();
    const [first] = staged.objects;
    assert.ok(first);
    pod.store.objects.set(first.key, Buffer.from('cut'));
    await assert.rejects(promote(staged), { type: 'STORAGE_UNAVAILABLE' });
    assert.ok(!pod.store.keys('models/').includes('models/style_7/lora_weights.safetensors'));
  });

  it('stops writing when the hold is lost', async () => {
    pod.store.onWrite = () => pod.fence.close(pod.holdId, new (class extends Error {})('gone') as never);
    await assert.rejects(upload());
    assert.ok(pod.store.keys('staging/').length <= 1);
  });
});

describe('notify', () => {
  let pod: TestPod;
  let control: ControlActivities;
  const job = { styleId: 7, taskId: 'task', webhookOrigin: 'https://backend.example' };

  beforeEach(() => {
    pod = new TestPod();
    control = createControlActivities({ ...pod.deps, uriScheme: 's3', keepFinalCheckpoints: 1 });
  });
  afterEach(() => pod.close());

  let askTemporal: () => Promise<void> = () => Promise.resolve();
  let newestTraining: () => Promise<object> = () => Promise.reject(noTraining);
  const noTraining = new WorkflowNotFoundError('none', 'train-style-7', undefined);

  const client = {
    activity: { heartbeat: () => askTemporal() },
    workflow: {
      getHandle: (workflowId: string) => {
        assert.equal(workflowId, 'train-style-7');
        return { describe: () => newestTraining() };
      },
    },
    withDeadline: (_deadline: number, call: () => Promise<unknown>) => call(),
    withAbortSignal: (_signal: AbortSignal, call: () => Promise<unknown>) => call(),
  } as unknown as Client;
  const run = (input: Parameters<ControlActivities['notify']>[0]) =>
    quietEnvironment(client).run(control.notify, input);

  beforeEach(() => {
    askTemporal = () => Promise.resolve();
    newestTraining = () => Promise.reject(noTraining);
  });

  const failed = { kind: 'failed', ...job, webhookId: 'id', errorCode: 'INTERNAL', errorMessage: 'Why.' } as const;
  const isType = (type: string) => (error: unknown) => error instanceof ApplicationFailure && error.type === type;

  it('keeps a final notice to itself when its job was reset or terminated meanwhile', async () => {
    askTemporal = () => Promise.reject(new ActivityNotFoundError('gone'));
    await assert.rejects(run(failed), isType('CANCELLED'));
    assert.deepEqual(pod.backend.notices, []);
  });

  it('does not send a final notice whose end it could not report', async () => {
    askTemporal = () => Promise.reject(new Error('unreachable'));
    await assert.rejects(run(failed), isType('WEBHOOK_UNAVAILABLE'));
    assert.deepEqual(pod.backend.notices, []);
  });

  describe('about a refused message', () => {
    const REFUSED_AT_MS = 10_000;
    const refused = { ...failed, unlessTrainedSinceMs: REFUSED_AT_MS };
    const training = (status: string, closedAtMs?: number) => () =>
      Promise.resolve({
        memo: { taskId: 'corrected' },
        status: { name: status },
        ...(closedAtMs !== undefined && { closeTime: new Date(closedAtMs) }),
      });

    it('is sent where the style was not trained since', async () => {
      await run(refused);
      newestTraining = training('COMPLETED', REFUSED_AT_MS - 1);
      await run(refused);
      assert.equal(pod.backend.notices.length, 2);
    });

    for (const [state, newest] of [
      ['runs', training('RUNNING')],
      ['has ended since', training('FAILED', REFUSED_AT_MS)],
    ] as const) {
      it(`is dropped, with the reason, when a training ${state}: the backend would take it for that one's end`, async () => {
        newestTraining = newest;
        await assert.rejects(run(refused), (error: unknown) => {
          assert.ok(isType('CANCELLED')(error) && error instanceof ApplicationFailure);
          assert.match(error.message, /Style 7 .*in training since.*task corrected/);
          return true;
        });
        assert.deepEqual(pod.backend.notices, []);
      });
    }

    it('waits where Temporal does not say whether the style was trained', async () => {
      newestTraining = () => Promise.reject(new Error('unreachable'));
      await assert.rejects(run(refused), isType('WEBHOOK_UNAVAILABLE'));
      assert.deepEqual(pod.backend.notices, []);
    });
  });

  it('sends a final notice also after a cancel of the job', async () => {
    askTemporal = () => Promise.reject(new ActivityCancelledError('cancel requested'));
    await run(failed);
    assert.equal(pod.backend.notices.length, 1);
  });

  it('tells of no progress of a job that is over', async () => {
    askTemporal = () => Promise.reject(new ActivityNotFoundError('gone'));
    const progress = { kind: 'progress', ...job, currentEpoch: 1, totalEpochs: 3, estimatedSeconds: 90 } as const;
    await assert.rejects(run(progress), isType('CANCELLED'));
    assert.deepEqual(pod.backend.notices, []);
  });

  it('tells of progress in percent', async () => {
    await run({ kind: 'progress', ...job, currentEpoch: 1, totalEpochs: 3, estimatedSeconds: 90 });
    assert.deepEqual(pod.backend.notices, [
      {
        origin: job.webhookOrigin,
        notice: {
          style_id: 7,
          progress: { current_epoch: 1, total_epochs: 3, progress_percent: 33.3, estimated_seconds: 90 },
        },
        webhookId: null,
      },
    ]);
  });

  it('tells of the weights', async () => {
    const weights = { modelUri: 's3://b/w', loss: 0.1, epochs: 3, rank: 16, alpha: 32 };
    await run({ kind: 'complete', ...job, webhookId: 'id', ...weights });
    assert.deepEqual(pod.backend.notices[0], {
      origin: job.webhookOrigin,
      notice: {
        style_id: 7,
        model_path: 's3://b/w',
        model_url: 's3://b/w',
        training_metric: { loss: 0.1, epochs: 3 },
        metadata: { training_epochs: 3, lora_rank: 16, lora_alpha: 32 },
      },
      webhookId: 'id',
    });
  });

  it('tells of a failure', async () => {
    await run({ kind: 'failed', ...job, webhookId: 'id', errorCode: 'CANCELLED', errorMessage: 'Why.' });
    assert.deepEqual(pod.backend.notices[0], {
      origin: job.webhookOrigin,
      notice: { style_id: 7, error_message: 'Why.', error_code: 'CANCELLED' },
      webhookId: 'id',
    });
  });
});
