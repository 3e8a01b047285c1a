import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { ActivityNotFoundError } from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { createControlActivities, createPodActivities } from '../../../activities/index.ts';
import type { ControlActivities, PodActivities } from '../../../activities/index.ts';
import { AccessDeniedError, PodLostError } from '../../../common/errors.ts';
import type { PromoteResult, UploadResult } from '../../../common/activity-types.ts';
import { CONFIG, TestPod, quietEnvironment, temporalWith } from './support/pod.ts';

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

  function promote(
    { stagingPrefix, objects }: UploadResult,
    tryCount: number | null = 1,
    environment = quietEnvironment(),
  ): Promise<PromoteResult> {
    const input = { styleId: 7, taskId: 'task', stagingPrefix, objects };
    return environment.run(control.promote, { ...input, ...(tryCount !== null && { tryCount }) });
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

    it('counts the tries of Temporal where the job, begun by an earlier version, counts none', async () => {
      const staged = await upload();
      await assert.rejects(promote(staged, null, quietEnvironment(undefined, { attempt: 7 })), {
        type: 'ACCESS_DENIED',
      });
      await promote(staged, null, quietEnvironment(undefined, { attempt: 8 }));
    });
  });

  describe('from a store that hangs', () => {
    const quick = () => quietEnvironment(undefined, { startToCloseTimeoutMs: 100 });
    const never = (signal: AbortSignal | undefined) =>
      new Promise<never>((_, reject) => {
        if (signal?.aborted === true) reject(signal.reason as Error);
        signal?.addEventListener('abort', () => reject(signal.reason as Error));
      });

    it('says so before its time is over: nobody would see a time-out of Temporal', async () => {
      pod.store.copy = (_from, _to, options) => never(options?.signal);
      await assert.rejects(promote(await upload(), 1, quick()), {
        ...{ type: 'STORAGE_UNAVAILABLE', nonRetryable: false },
        message: 'The store did not answer within 0.08 s: look after it.',
      });
    });

    it('is published all the same on the last try, where nothing but the clean-up hangs', async () => {
      pod.store.list = (_bucket, _prefix, options) => never(options?.signal);
      const staged = await upload();
      await assert.rejects(promote(staged, 7, quick()), { type: 'STORAGE_UNAVAILABLE' });
      const { modelUri } = await promote(staged, 8, quick());
      assert.equal(modelUri, 's3://bucket/models/style_7/lora_weights.safetensors');
    });

    it('tells of it too where it looks for a checkpoint', async () => {
      pod.store.list = (_bucket, _prefix, options) => never(options?.signal);
      const input = { styleId: 7, taskId: 'task', excludedManifestKeys: [] };
      await assert.rejects(quick().run(control.findResumePoint, input), { type: 'STORAGE_UNAVAILABLE' });
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

  it('writes nothing once another attempt has taken over', async () => {
    const staged = await upload();
    const gone = temporalWith(() => Promise.reject(new ActivityNotFoundError('timed out')));
    await assert.rejects(promote(staged, 1, quietEnvironment(gone)), { type: 'CANCELLED' });
    assert.deepEqual(pod.store.keys('models/'), []);
    assert.ok(pod.store.keys('staging/').length > 0);
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
    await assert.rejects(promote(staged, 7), { type: 'STORAGE_UNAVAILABLE' });
    await assert.rejects(promote(staged, 8), {
      ...{ type: 'INTERNAL', nonRetryable: true },
      message: /^The staged weights are gone .* Reset the job to its first workflow task/,
    });
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

  it('writes nothing from a pod that was cut off, though it does not know it yet', async () => {
    pod.fence.check = () => {
      throw new PodLostError('Frozen until now.');
    };
    await assert.rejects(upload(), { type: 'POD_LOST' });
    assert.deepEqual(pod.store.keys(), []);
  });
});
