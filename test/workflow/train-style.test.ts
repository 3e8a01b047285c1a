import assert from 'node:assert/strict';
import { WorkflowFailedError } from '@temporalio/client';
import type { WorkflowHandle } from '@temporalio/client';
import { ActivityFailure, ApplicationFailure, CancelledFailure } from '@temporalio/common';
import { Scene, resultOf, startHarness, statusOf } from './support/harness.ts';
import type { Harness } from './support/harness.ts';
import { failure, until } from './support/world.ts';

async function failureOf(handle: WorkflowHandle): Promise<Error> {
  try {
    await handle.result();
  } catch (error) {
    assert.ok(error instanceof WorkflowFailedError);
    assert.ok(error.cause);
    return error.cause;
  }
  assert.fail('The workflow was expected to fail.');
}

function codeOf(error: Error): string | null | undefined {
  const cause = error instanceof ActivityFailure ? error.cause : error;
  assert.ok(cause instanceof ApplicationFailure, String(cause));
  return cause.type;
}

describe('trainStyle', function () {
  this.timeout(60_000);
  let harness: Harness;
  let scene: Scene;

  before(async () => {
    harness = await startHarness();
  });
  after(() => harness.env.teardown());
  beforeEach(() => {
    scene = new Scene(harness);
  });
  afterEach(() => scene.close());

  it('trains chunk by chunk, publishes and tells the backend once', async () => {
    await scene.addPod('a');
    const handle = await scene.start();
    const result = await resultOf(handle);

    assert.deepEqual(result, {
      modelUri: 's3://models/style_42/lora_weights.safetensors',
      loss: 1 / 30,
      epochs: 30,
      podLosses: 0,
    });
    assert.deepEqual(scene.world.loggedOf('trainEpochChunk'), [
      'trainEpochChunk@a 0-10',
      'trainEpochChunk@a 0-10 done',
      'trainEpochChunk@a 10-20',
      'trainEpochChunk@a 10-20 done',
      'trainEpochChunk@a 20-30',
      'trainEpochChunk@a 20-30 done',
    ]);
    assert.equal(scene.world.finalNotices().length, 1);
    const notice = scene.world.finalNotices()[0];
    assert.equal(notice?.kind, 'complete');
    assert.deepEqual([...scene.world.manifests.keys()], [10, 20, 30]);
    assert.equal(scene.world.manifests.get(20)?.losses.length, 20);
    const status = await statusOf(handle);
    assert.equal(status.phase, 'done');
    assert.equal(status.epoch, 30);
    const description = await handle.describe();
    assert.deepEqual(description.searchAttributes['TrainPhase'], ['done']);
    assert.deepEqual(description.searchAttributes['TrainEpoch'], [30]);
  });

  it('ends cancelled with one failed notice when cancelled in the middle of a chunk', async () => {
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
    const [notice, ...more] = world.finalNotices();
    assert.ok(notice?.kind === 'failed');
    assert.equal(notice.errorCode, 'CANCELLED');
    assert.equal(more.length, 0);
    assert.ok(world.log.includes('trainEpochChunk@a 10-20 cancelled'));
    assert.equal((await statusOf(handle)).phase, 'cancelled');
  });

  it('goes on from the last committed checkpoint on another pod when one dies', async () => {
    const { world } = scene;
    const first = await scene.addPod('a');
    world.when('trainEpochChunk', (pod, input) => {
      if (pod === 'a' && (input as { fromEpoch: number }).fromEpoch === 10) return world.hang();
      return undefined;
    });
    const handle = await scene.start();
    await until(() => world.manifests.has(10), 'first checkpoint');
    await until(() => world.log.includes('trainEpochChunk@a 10-20'), 'second chunk');
    await scene.addPod('b');
    first.kill();
    const result = await resultOf(handle);
    assert.equal(result.podLosses, 1);
    assert.ok(world.log.includes('download@b from 10 done'));
    assert.ok(!world.log.includes('trainEpochChunk@b 0-10'));
    assert.ok(world.log.includes('trainEpochChunk@b 10-20 done'));
    assert.equal(world.finalNotices().length, 1);
  });

  it('fails at once, with its code, on an error that can not pass', async () => {
    const { world } = scene;
    world.when('download', () => {
      throw failure('IMAGE_NOT_FOUND', false);
    });
    await scene.addPod('a');
    const handle = await scene.start();
    assert.equal(codeOf(await failureOf(handle)), 'IMAGE_NOT_FOUND');
    const [notice] = world.finalNotices();
    assert.ok(notice?.kind === 'failed');
    assert.equal(notice.errorCode, 'IMAGE_NOT_FOUND');
    assert.equal(world.loggedOf('download').length, 2);
    assert.equal((await statusOf(handle)).phase, 'failed');
  });
});
