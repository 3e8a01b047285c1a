import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { assertOneFailedNotice, codeOf, failureOf } from './support/expect.ts';
import { inPhase, resultOf, sceneForEachTest, statusOf } from './support/harness.ts';
import type { Scene } from './support/harness.ts';
import { failure, until } from './support/world.ts';

const fromEpochOf = (input: unknown) => (input as { fromEpoch: number }).fromEpoch;

describe('trainStyle and its pods', function () {
  this.timeout(60_000);
  let scene: Scene;

  sceneForEachTest((made) => (scene = made));

  it('goes on from the last committed checkpoint on another pod when one dies', async () => {
    const { world } = scene;
    const first = await scene.addPod('a');
    world.when('trainEpochChunk', (pod, input) =>
      pod === 'a' && fromEpochOf(input) === 10 ? world.hang() : undefined,
    );
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
    assert.equal(world.manifests.get(30)?.losses.length, 30);
  });

  it('ignores a pod that answers for another hold', async () => {
    const { world } = scene;
    const handle = await scene.start();
    await inPhase(handle, 'waiting-for-pod');
    const stale = { holdId: randomUUID(), queue: 'nobody', host: 'stale', gpu: 'cpu', vramMiB: null };
    await handle.signal('podHeld', stale);
    await scene.addPod('a');
    await until(() => world.log.includes('trainEpochChunk@a 0-10'), 'first chunk');
    await handle.signal('podHeld', stale);
    const result = await resultOf(handle);
    assert.equal(result.podLosses, 0);
  });

  it('holds anew when a second pod answers for the same hold', async () => {
    const { world } = scene;
    let holdId = '';
    world.when('holdPod', (_pod, input) => {
      holdId ||= (input as { holdId: string }).holdId;
    });
    const gate = Promise.withResolvers<void>();
    world.when('trainEpochChunk', (_pod, input) => (fromEpochOf(input) === 0 ? gate.promise : undefined));
    await scene.addPod('a');
    const handle = await scene.start();
    await until(() => world.log.includes('trainEpochChunk@a 0-10'), 'first chunk');
    await handle.signal('podHeld', { holdId, queue: 'elsewhere', host: 'b', gpu: 'cpu', vramMiB: null });
    await until(async () => (await statusOf(handle)).podLosses === 1, 'lost pod');
    gate.resolve();
    assert.equal((await resultOf(handle)).podLosses, 1);
  });

  it('loses any number of pods that leave in order', async () => {
    const { world } = scene;
    let left = 5;
    world.when('trainEpochChunk', (_pod, input) => {
      if (fromEpochOf(input) !== 0 || left === 0) return;
      left -= 1;
      throw failure('WORKER_SHUTDOWN', true);
    });
    await scene.addPod('a');
    const handle = await scene.start();
    assert.equal((await resultOf(handle)).podLosses, 5);
  });

  describe('lost too often without a checkpoint', () => {
    async function loseThree() {
      let lost = 0;
      scene.world.when('download', () => {
        lost += 1;
        if (lost <= 3) throw failure('POD_LOST', true);
      });
      await scene.addPod('a');
      const handle = await scene.start();
      const status = await inPhase(handle, 'awaiting-operator', 30_000);
      assert.equal(status.podLosses, 3);
      assert.equal(status.host, null);
      assert.match(status.reason ?? '', /retryNow.*giveUp/);
      return handle;
    }

    it('waits for an operator and goes on after retryNow', async () => {
      const handle = await loseThree();
      await handle.signal('retryNow');
      assert.equal((await resultOf(handle)).epochs, 30);
    });

    it('fails after giveUp', async () => {
      const handle = await loseThree();
      await handle.signal('giveUp');
      assert.equal(codeOf(await failureOf(handle)), 'POD_LOST');
      assertOneFailedNotice(scene.world, 'POD_LOST');
    });
  });

  it('ignores retryNow and giveUp while nobody asked', async () => {
    const { world } = scene;
    const gate = Promise.withResolvers<void>();
    world.when('download', () => gate.promise);
    await scene.addPod('a');
    const handle = await scene.start();
    await inPhase(handle, 'preparing');
    await handle.signal('giveUp');
    await handle.signal('retryNow');
    gate.resolve();
    assert.equal((await resultOf(handle)).epochs, 30);
  });

  it('keeps the reason of a wait whatever operators signal meanwhile', async () => {
    const { world } = scene;
    let tries = 0;
    world.when('download', () => {
      tries += 1;
      if (tries < 3) throw failure('STORAGE_UNAVAILABLE', true);
    });
    await scene.addPod('a');
    const handle = await scene.start();
    const reason = async () => (await statusOf(handle)).reason ?? '';
    await until(async () => (await reason()).startsWith('Trying again'), 'reason of the wait');
    await handle.signal('retryNow');
    await handle.signal('pauseTraining');
    assert.match(await reason(), /^Pausing: .* Trying again in \d+ s after STORAGE_UNAVAILABLE/);
    await handle.signal('resumeTraining');
    assert.match(await reason(), /^(Trying again in \d+ s after STORAGE_UNAVAILABLE|Downloading)/);
    assert.equal((await resultOf(handle)).epochs, 30);
  });

  describe('pause', () => {
    it('commits what is trained, gives the pod back, and resumes from the checkpoint', async () => {
      const { world } = scene;
      const gate = Promise.withResolvers<void>();
      world.when('trainEpochChunk', (_pod, input) => (fromEpochOf(input) === 10 ? gate.promise : undefined));
      await scene.addPod('a');
      const handle = await scene.start();
      await until(() => world.log.includes('trainEpochChunk@a 10-20'), 'second chunk');
      await handle.signal('pauseTraining');
      await until(async () => (await statusOf(handle)).reason?.startsWith('Pausing') === true, 'reason');
      gate.resolve();
      const status = await inPhase(handle, 'paused');
      assert.equal(status.lastCheckpoint?.epoch, 20);
      assert.equal(status.host, null);
      await until(() => world.log.includes('holdPod@a released'), 'released pod');
      await handle.signal('resumeTraining');
      const result = await resultOf(handle);
      assert.equal(result.podLosses, 0);
      assert.ok(world.log.includes('download@a from 20 done'));
      assert.ok(world.log.includes('trainEpochChunk@a 20-30 done'));
    });

    it('ends the wait for a pod, and the backend hears of it', async () => {
      const handle = await scene.start();
      await inPhase(handle, 'waiting-for-pod');
      await until(() => scene.world.notices.length === 1, 'notice of the wait for a pod');
      await handle.signal('pauseTraining');
      await inPhase(handle, 'paused');
      await until(() => scene.world.notices.length === 2, 'notice of the pause');
      await scene.addPod('a');
      await new Promise((resolve) => setTimeout(resolve, 300));
      assert.deepEqual(scene.world.loggedOf('holdPod'), []);
      await handle.signal('resumeTraining');
      assert.equal((await resultOf(handle)).epochs, 30);
    });
  });

  describe('checkpoints', () => {
    function committed(epochs: number[]): void {
      for (const epoch of epochs) {
        const losses = Array.from({ length: epoch }, () => 0.5);
        const ref = { manifestKey: `manifest-${epoch}`, epoch, step: epoch * 12, fingerprint: 'f' };
        scene.world.manifests.set(epoch, { ...ref, losses });
      }
    }

    it('that are damaged are left out, and written anew', async () => {
      const { world } = scene;
      committed([10, 20]);
      world.when('download', (_pod, input) => {
        if ((input as { resumeFrom: { epoch: number } | null }).resumeFrom?.epoch === 20) {
          throw failure('CHECKSUM_MISMATCH', true);
        }
      });
      const replaced: [number, boolean][] = [];
      world.when('checkpoint', (_pod, input) => {
        const { epoch, replaceDamaged } = input as { epoch: number; replaceDamaged: boolean };
        replaced.push([epoch, replaceDamaged]);
      });
      await scene.addPod('a');
      const handle = await scene.start();
      await resultOf(handle);
      assert.deepEqual(world.loggedOf('findResumePoint'), ['findResumePoint ', 'findResumePoint manifest-20']);
      assert.ok(world.log.includes('download@a from 10 done'));
      assert.deepEqual(replaced, [
        [20, true],
        [30, false],
      ]);
    });

    it('of another run end the job with a clear refusal', async () => {
      committed([10]);
      scene.world.when('download', () => {
        throw failure('CHECKPOINT_INCOMPATIBLE', false);
      });
      await scene.addPod('a');
      assert.equal(codeOf(await failureOf(await scene.start())), 'CHECKPOINT_INCOMPATIBLE');
      assertOneFailedNotice(scene.world, 'CHECKPOINT_INCOMPATIBLE');
    });

    it('of a finished training only need publishing', async () => {
      committed([30]);
      await scene.addPod('a');
      const result = await resultOf(await scene.start());
      assert.deepEqual(scene.world.loggedOf('trainEpochChunk'), []);
      assert.equal(result.loss, 0.5);
    });
  });

  describe('reset to the first workflow task', () => {
    it('resumes from the checkpoint and ignores the signals of the run before', async () => {
      const { world } = scene;
      let broken = true;
      const holdIds = new Set<string>();
      world.when('holdPod', (_pod, input) => void holdIds.add((input as { holdId: string }).holdId));
      const gate = Promise.withResolvers<void>();
      world.when('trainEpochChunk', async (_pod, input) => {
        if (!broken || fromEpochOf(input) !== 20) return;
        await gate.promise;
        throw failure('INVALID_REQUEST', false);
      });
      await scene.addPod('a');
      const handle = await scene.start();
      await until(() => world.log.includes('trainEpochChunk@a 20-30'), 'last chunk');
      await until(() => world.manifests.has(20), 'second checkpoint');
      // The most harmful signal to take up again: nobody would ever resume the redone job.
      await handle.signal('pauseTraining');
      await handle.signal('giveUp');
      gate.resolve();
      await failureOf(handle);
      broken = false;

      const { workflowId } = handle;
      const { events } = await handle.fetchHistory();
      const firstTask = events?.find((event) => event.workflowTaskCompletedEventAttributes)?.eventId;
      assert.ok(firstTask);
      const { runId } = await handle.describe();
      await scene.client.workflowService.resetWorkflowExecution({
        namespace: 'default',
        workflowExecution: { workflowId, runId },
        reason: 'test',
        workflowTaskFinishEventId: firstTask,
        requestId: randomUUID(),
      });
      const redone = scene.client.workflow.getHandle(workflowId);
      const result = await resultOf(redone);
      assert.equal(result.epochs, 30);
      assert.equal(result.podLosses, 0);
      assert.equal(holdIds.size, 2, 'the answer to the first hold must not count for the second');
      assert.ok(world.log.includes('download@a from 20 done'));
      assert.deepEqual(
        world.finalNotices().map(({ kind }) => kind),
        ['failed', 'complete'],
      );
    });
  });
});
