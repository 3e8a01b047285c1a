import assert from 'node:assert/strict';
import { CancelledFailure } from '@temporalio/common';
import type { DownloadInput, HoldPodInput } from '../../common/activity-types.ts';
import { assertOneFailedNotice, codeOf, failureOf } from './support/expect.ts';
import { inPhase, resultOf, sceneForEachTest, statusOf } from './support/harness.ts';
import type { Scene } from './support/harness.ts';
import { failure, until } from './support/world.ts';

describe('trainStyle before it takes a pod', function () {
  this.timeout(60_000);
  let scene: Scene;

  sceneForEachTest((made) => (scene = made));

  it('looks at the pictures, and shows what is doubtful while it waits for a pod', async () => {
    const { world } = scene;
    const gate = Promise.withResolvers<void>();
    world.when('inspectPictures', () => gate.promise);
    const input = scene.input();
    const handle = await scene.start(input);
    await until(async () => (await statusOf(handle)).reason === 'Looking at 12 pictures.', 'the reason');
    assert.equal((await statusOf(handle)).phase, 'queued');
    gate.resolve();
    const status = await inPhase(handle, 'waiting-for-pod');
    assert.deepEqual(status.dataDoubts, ['3.png is of nearly one colour']);
    assert.equal(status.dataReport, `s3://models/checkpoints/style_${input.styleId}/${input.taskId}/data-report.json`);
    await scene.addPod('a');
    await resultOf(handle);
    assert.equal(world.loggedOf('inspectPictures').length, 1);
  });

  it('tells each pod what the pictures were, and tries another one where they are not', async () => {
    const { world } = scene;
    const hashes: unknown[] = [];
    const held: string[] = [];
    world.when('holdPod', (_pod, input) => void held.push((input as HoldPodInput).holdId));
    world.when('download', (_pod, input) => {
      hashes.push((input as DownloadInput).pictureHashes);
      if (hashes.length < 3) throw failure('IMAGE_INVALID', true);
    });
    await scene.addPod('a');
    const input = scene.input();
    const { podLosses } = await resultOf(await scene.start(input));
    const expected = input.images.map((uri) => `hash of ${uri}`);
    assert.deepEqual(hashes, [expected, expected, expected]);
    assert.deepEqual([podLosses, held.length], [0, 3]);
  });

  it('fails on pictures that were changed since it has looked at them, after three tries and no lost pod', async () => {
    const { world } = scene;
    let tries = 0;
    world.when('download', () => {
      tries += 1;
      throw failure('IMAGE_INVALID', true);
    });
    await scene.addPod('a');
    const handle = await scene.start();
    assert.equal(codeOf(await failureOf(handle)), 'IMAGE_INVALID');
    assertOneFailedNotice(world, 'IMAGE_INVALID');
    assert.deepEqual([tries, (await statusOf(handle)).podLosses], [3, 0]);
  });

  it('fails on pictures that can not be used, with no pod anywhere', async () => {
    const { world } = scene;
    world.when('inspectPictures', () => {
      throw failure('IMAGE_INVALID', false);
    });
    const handle = await scene.start();
    assert.equal(codeOf(await failureOf(handle)), 'IMAGE_INVALID');
    assertOneFailedNotice(world, 'IMAGE_INVALID');
    assert.equal((await statusOf(handle)).phase, 'failed');
  });

  it('waits for a store that is down, visibly, and looks only once more after a pod is lost', async () => {
    const { world } = scene;
    let failures = 0;
    world.when('inspectPictures', () => {
      failures += 1;
      if (failures === 1) throw failure('STORAGE_UNAVAILABLE', true);
    });
    let lost = 0;
    world.when('download', () => {
      lost += 1;
      if (lost === 1) throw failure('POD_LOST', true);
    });
    await scene.addPod('a');
    const handle = await scene.start();
    const says = async () =>
      (await statusOf(handle)).reason?.startsWith('Trying again in 2 s after STORAGE_UNAVAILABLE');
    await until(async () => (await says()) === true, 'the reason of the wait');
    const { phase, lastError } = await statusOf(handle);
    assert.deepEqual([phase, lastError?.code], ['queued', 'STORAGE_UNAVAILABLE']);
    assert.equal((await resultOf(handle)).podLosses, 1);
    assert.equal(world.loggedOf('inspectPictures').length, 2);
  });

  it('goes on where the look itself fails again and again: the pod looks too', async () => {
    const { world } = scene;
    world.when('inspectPictures', () => {
      throw failure('INTERNAL', true);
    });
    await scene.addPod('a');
    const input = scene.input();
    const handle = await scene.start({ ...input, settings: { ...input.settings, applicationAttempts: 2 } });
    assert.equal((await resultOf(handle)).epochs, 30);
    assert.equal(world.loggedOf('inspectPictures').length, 2);
  });

  it('finds another control worker when one dies', async () => {
    const { world } = scene;
    let tries = 0;
    world.when('inspectPictures', () => (++tries === 1 ? world.hang() : undefined));
    const input = scene.input();
    const { limits } = input.settings;
    assert.ok(limits.inspectPictures);
    limits.inspectPictures.heartbeatMs = 1_000;
    const handle = await scene.start(input);
    await inPhase(handle, 'waiting-for-pod', 30_000);
    assert.equal(tries, 2);
  });

  it('pauses and is cancelled like at any other time', async () => {
    const { world } = scene;
    const gate = Promise.withResolvers<void>();
    world.when('inspectPictures', () => gate.promise);
    const handle = await scene.start();
    await until(() => world.loggedOf('inspectPictures').length === 1, 'the look');
    await handle.signal('pauseTraining');
    gate.resolve();
    await inPhase(handle, 'paused');
    await handle.signal('resumeTraining');
    await inPhase(handle, 'waiting-for-pod');

    const other = await scene.start();
    world.when('inspectPictures', () => world.hang());
    await until(() => world.loggedOf('inspectPictures').length === 2, 'the other look');
    await other.cancel();
    assert.ok((await failureOf(other)) instanceof CancelledFailure);
    assertOneFailedNotice(world, 'CANCELLED');
  });

  it('leaves it to the pod in a job that an older version accepted', async () => {
    const { world } = scene;
    await scene.addPod('a');
    const input = scene.input();
    delete input.settings.limits.inspectPictures;
    assert.equal((await resultOf(await scene.start(input))).epochs, 30);
    assert.deepEqual(world.loggedOf('inspectPictures'), []);
  });
});
