import assert from 'node:assert/strict';
import { CancelledFailure } from '@temporalio/common';
import type { TrainEpochChunkInput } from '../../common/activity-types.ts';
import type { TrainingConfig } from '../../common/types.ts';
import { assertOneFailedNotice, codeOf, failureOf } from './support/expect.ts';
import { inPhase, resultOf, sceneForEachTest, statusOf } from './support/harness.ts';
import type { Scene } from './support/harness.ts';
import { failure, until } from './support/world.ts';

describe('trainStyle', function () {
  this.timeout(60_000);
  let scene: Scene;

  sceneForEachTest((made) => (scene = made));

  it('trains chunk by chunk, publishes and tells the backend once', async () => {
    const { world } = scene;
    const stepsPerEpoch: number[] = [];
    world.when('trainEpochChunk', (_pod, input) => {
      stepsPerEpoch.push((input as TrainEpochChunkInput).stepsPerEpoch);
    });
    await scene.addPod('a');
    const handle = await scene.start();
    const result = await resultOf(handle);

    const modelUri = 's3://models/style_42/lora_weights.safetensors';
    assert.deepEqual(result, { modelUri, loss: 1 / 30, epochs: 30, podLosses: 0 });
    assert.deepEqual(
      world.loggedOf('trainEpochChunk').filter((line) => line.endsWith('done')),
      ['trainEpochChunk@a 0-10 done', 'trainEpochChunk@a 10-20 done', 'trainEpochChunk@a 20-30 done'],
    );
    assert.deepEqual(stepsPerEpoch, [12, 12, 12]);
    const [notice, ...more] = world.finalNotices();
    assert.ok(notice?.kind === 'complete');
    assert.equal(notice.modelUri, modelUri);
    assert.deepEqual(more, []);
    assert.deepEqual([...world.manifests.keys()], [10, 20, 30]);
    assert.equal(world.manifests.get(20)?.losses.length, 20);
    assert.ok(world.log.indexOf('checkpoint@a 30 done') < world.log.findIndex((line) => line.startsWith('promote')));
  });

  it('shows where it stands in status, details, search attributes, checkpoints and loss curve', async () => {
    const { world } = scene;
    world.when('trainEpochChunk', (_pod, input) =>
      (input as { fromEpoch: number }).fromEpoch === 20 ? world.hang() : undefined,
    );
    await scene.addPod('a');
    const handle = await scene.start();
    await until(async () => (await statusOf(handle)).lastCheckpoint?.epoch === 20, 'second checkpoint');

    const status = await statusOf(handle);
    assert.equal(status.phase, 'training');
    assert.deepEqual([status.epoch, status.totalEpochs, status.host, status.gpu], [20, 30, 'a', 'cpu']);
    assert.deepEqual(status.dataDoubts, ['3.png is of nearly one colour']);
    assert.equal((await handle.query<number[]>('lossCurve')).length, 20);
    const checkpoints = await handle.query<{ epoch: number; previewKey?: string }[]>('checkpoints');
    assert.deepEqual(
      checkpoints.map(({ epoch, previewKey }) => [epoch, previewKey]),
      [
        [20, undefined],
        [10, 'bucket/pod/epoch-10.png'],
      ],
    );
    const metadata = await handle.query<{ currentDetails: string }>('__temporal_workflow_metadata');
    for (const text of [
      'Style 42: Training',
      'Epoch | 20 of 30',
      'a (cpu)',
      'Last checkpoint | epoch 20',
      'nearly one colour',
    ]) {
      assert.ok(metadata.currentDetails.includes(text), `${text} in ${metadata.currentDetails}`);
    }
    const { searchAttributes } = await handle.describe();
    assert.deepEqual(searchAttributes['TrainPhase'], ['training']);
    assert.deepEqual(searchAttributes['TrainEpoch'], [20]);
    assert.deepEqual(searchAttributes['GpuHost'], ['a']);
    const { events } = await handle.fetchHistory();
    const summaries = (events ?? []).map(({ userMetadata }) => String(userMetadata?.summary?.data ?? ''));
    assert.ok(summaries.some((summary) => summary.includes('epochs 21–30 on a')));
  });

  it('never starts chunk n+2 before checkpoint n is committed, but does train beside it', async () => {
    const { world } = scene;
    const commit = Promise.withResolvers<void>();
    world.when('checkpoint', (_pod, input) => ((input as { epoch: number }).epoch === 10 ? commit.promise : undefined));
    await scene.addPod('a');
    const handle = await scene.start();
    await until(() => world.log.includes('trainEpochChunk@a 10-20 done'), 'second chunk beside the first checkpoint');
    await new Promise((resolve) => setTimeout(resolve, 500));
    assert.ok(!world.log.includes('trainEpochChunk@a 20-30'));
    commit.resolve();
    await resultOf(handle);
    assert.ok(world.log.indexOf('checkpoint@a 10 done') < world.log.indexOf('trainEpochChunk@a 20-30'));
  });

  it('fails at once, with its code, on an error that can not pass', async () => {
    const { world } = scene;
    world.when('download', () => {
      throw failure('IMAGE_NOT_FOUND', false);
    });
    await scene.addPod('a');
    const handle = await scene.start();
    assert.equal(codeOf(await failureOf(handle)), 'IMAGE_NOT_FOUND');
    assertOneFailedNotice(world, 'IMAGE_NOT_FOUND');
    assert.equal(world.loggedOf('download').length, 2);
    assert.equal((await statusOf(handle)).phase, 'failed');
    assert.deepEqual((await handle.describe()).searchAttributes['TrainErrorCode'], ['IMAGE_NOT_FOUND']);
  });

  it('refuses a job with too few images without taking a pod', async () => {
    await scene.addPod('a');
    const handle = await scene.start(scene.input({ images: ['s3://pictures/0.png'] }));
    assert.equal(codeOf(await failureOf(handle)), 'TOO_FEW_IMAGES');
    assertOneFailedNotice(scene.world, 'TOO_FEW_IMAGES');
    assert.deepEqual(scene.world.loggedOf('holdPod'), []);
  });

  it('sets no search attributes where the namespace does not know them', async () => {
    await scene.addPod('a');
    const input = scene.input();
    const handle = await scene.start({ ...input, settings: { ...input.settings, searchAttributes: false } });
    await resultOf(handle);
    const { events } = await handle.fetchHistory();
    const fields = (events ?? []).map((event) => event.upsertWorkflowSearchAttributesEventAttributes?.searchAttributes);
    const names = fields.flatMap((upsert) => Object.keys(upsert?.indexedFields ?? {}));
    // Every namespace knows what the SDK itself sets for `patched`.
    assert.deepEqual([...new Set(names)], ['TemporalChangeVersion']);
  });

  it('repeats a passing error on the same pod, and says what it waits for', async () => {
    const { world } = scene;
    const chunk = Promise.withResolvers<void>();
    world.when('trainEpochChunk', (_pod, input) =>
      (input as { fromEpoch: number }).fromEpoch === 10 ? chunk.promise : undefined,
    );
    let failures = 0;
    world.when('checkpoint', () => {
      failures += 1;
      if (failures === 1) throw failure('STORAGE_UNAVAILABLE', true);
    });
    await scene.addPod('a');
    const handle = await scene.start();
    const says = (start: string) => async () => (await statusOf(handle)).reason?.startsWith(start) === true;
    await until(says('Trying again in 2 s after STORAGE_UNAVAILABLE'), 'the reason of the pause');
    chunk.resolve();
    await until(says('Waiting until the checkpoint before'), 'the reason of the wait');
    await resultOf(handle);
    assert.equal(world.loggedOf('holdPod').filter((line) => line.endsWith('start')).length, 1);
    assert.ok(world.log.includes('checkpoint@a 10 failed'));
    assert.ok(world.log.includes('checkpoint@a 10 done'));
  });

  it('gives the pod back after a GPU fault and goes on from the last checkpoint', async () => {
    const { world } = scene;
    let faults = 0;
    world.when('trainEpochChunk', async (_pod, input) => {
      if ((input as { fromEpoch: number }).fromEpoch !== 10 || faults > 0) return;
      await until(() => world.manifests.has(10), 'first checkpoint');
      faults += 1;
      throw failure('GPU_FAULT', true);
    });
    await scene.addPod('a');
    const handle = await scene.start();
    await resultOf(handle);
    assert.equal(world.loggedOf('holdPod').filter((line) => line.endsWith('start')).length, 2);
    assert.ok(world.log.includes('download@a from 10 done'));
    assert.equal(world.loggedOf('trainEpochChunk').filter((line) => line.endsWith('0-10 done')).length, 1);
  });

  it('trains with gradient checkpointing after a GPU ran out of memory', async () => {
    const { world } = scene;
    const checkpointing: boolean[] = [];
    world.when('trainEpochChunk', (_pod, input) => {
      checkpointing.push((input as { config: TrainingConfig }).config.gradientCheckpointing);
      if (checkpointing.length === 1) throw failure('GPU_OUT_OF_MEMORY', true);
    });
    await scene.addPod('a');
    await resultOf(await scene.start());
    assert.deepEqual(checkpointing, [false, true, true, true]);
  });

  it('beside it, tellRefusal tells the backend of a message that became no job, until it listens', async () => {
    const { world } = scene;
    let refusals = 2;
    world.when('notify', () => {
      if (refusals-- > 0) throw failure('WEBHOOK_UNAVAILABLE', true);
    });
    const { settings, webhookOrigin } = scene.input();
    const input = { styleId: 7, messageId: 'refused-7-abc', webhookOrigin, settings };
    const handle = await scene.startRefusal({ ...input, errorCode: 'INVALID_REQUEST', errorMessage: 'no task_id' });
    await handle.result();
    const [notice, ...more] = world.finalNotices();
    assert.ok(notice?.kind === 'failed');
    assert.deepEqual([notice.styleId, notice.errorCode, notice.errorMessage], [7, 'INVALID_REQUEST', 'no task_id']);
    assert.deepEqual(more, []);
  });

  describe('cancel', () => {
    it('in the middle of a chunk ends cancelled with one failed notice, after the chunk has stopped', async () => {
      const { world } = scene;
      world.when('trainEpochChunk', (_pod, input) =>
        (input as { fromEpoch: number }).fromEpoch === 10 ? world.hang() : undefined,
      );
      await scene.addPod('a');
      const handle = await scene.start();
      await until(() => world.log.includes('trainEpochChunk@a 10-20'), 'second chunk');
      await handle.cancel();
      assert.ok((await failureOf(handle)) instanceof CancelledFailure);
      assert.equal((await handle.describe()).status.name, 'CANCELLED');
      assertOneFailedNotice(world, 'CANCELLED');
      assert.ok(world.log.indexOf('trainEpochChunk@a 10-20 cancelled') < world.log.indexOf('notify failed'));
      assert.equal((await statusOf(handle)).phase, 'cancelled');
    });

    it('on a pod that dies meanwhile still ends cancelled', async () => {
      const { world } = scene;
      world.when('trainEpochChunk', () => world.hang());
      const pod = await scene.addPod('a');
      const handle = await scene.start();
      await until(() => world.log.includes('trainEpochChunk@a 0-10'), 'first chunk');
      pod.kill();
      await handle.cancel();
      assert.ok((await failureOf(handle)) instanceof CancelledFailure);
      assertOneFailedNotice(world, 'CANCELLED');
    });

    it('while no pod is free ends cancelled', async () => {
      const handle = await scene.start();
      await inPhase(handle, 'waiting-for-pod');
      await handle.cancel();
      assert.ok((await failureOf(handle)) instanceof CancelledFailure);
      assertOneFailedNotice(scene.world, 'CANCELLED');
    });

    it('while it is paused ends cancelled', async () => {
      const handle = await scene.start();
      await inPhase(handle, 'waiting-for-pod');
      await handle.signal('pauseTraining');
      await inPhase(handle, 'paused');
      await handle.cancel();
      assert.ok((await failureOf(handle)) instanceof CancelledFailure);
      assertOneFailedNotice(scene.world, 'CANCELLED');
    });

    it('after the weights are published comes too late', async () => {
      const { world } = scene;
      const answer = Promise.withResolvers<void>();
      world.when('notify', (_pod, input) =>
        (input as { kind: string }).kind === 'complete' ? answer.promise : undefined,
      );
      await scene.addPod('a');
      const handle = await scene.start();
      await until(() => world.log.includes('notify complete'), 'complete notice');
      await handle.cancel();
      answer.resolve();
      await resultOf(handle);
      assert.deepEqual(
        world.finalNotices().map(({ kind }) => kind),
        ['complete'],
      );
    });
  });
});
