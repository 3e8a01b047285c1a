import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mock } from 'node:test';
import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import { createPodActivities } from '../../../activities/index.ts';
import type { PodActivities } from '../../../activities/index.ts';
import { PodLostError } from '../../../common/errors.ts';
import type { TrainEpochChunkInput, TrainEpochChunkResult, TrainProgress } from '../../../common/activity-types.ts';
import { PICTURES, chunkInput } from './support/chunk.ts';
import { heartbeatsOf, until } from './support/heartbeats.ts';
import { CONFIG, TestPod } from './support/pod.ts';

describe('trainEpochChunk', () => {
  let pod: TestPod;
  let activities: PodActivities;

  beforeEach(async () => {
    pod = new TestPod();
    await pod.withPictures(PICTURES);
    activities = createPodActivities(pod.deps);
  });
  afterEach(() => pod.close());

  const input = (overrides: Partial<TrainEpochChunkInput> = {}) => chunkInput(pod, overrides);

  function run(chunk = input()): Promise<TrainEpochChunkResult> {
    return pod.environment.run(activities.trainEpochChunk, chunk);
  }

  async function codeOf(promise: Promise<unknown>): Promise<string | null | undefined> {
    const error: unknown = await promise.then(
      () => null,
      (reason: unknown) => reason,
    );
    assert.ok(error instanceof ApplicationFailure, String(error));
    return error.type;
  }

  it('trains the epochs and leaves a checkpoint on the disk', async () => {
    const result = await run();
    assert.deepEqual([result.epochsRun, result.stepsRun], [2, 6]);
    assert.deepEqual(result.epochLosses, [1, 0.5]);
    assert.equal(result.loss, 0.5);
    assert.ok(existsSync(result.checkpointFile));
  });

  it('goes on without loading where the trainer stands already', async () => {
    const first = await run();
    const second = await run(input({ fromEpoch: 2, untilEpoch: 4, checkpointFile: first.checkpointFile }));
    assert.equal(second.stepsRun, 12);
    assert.deepEqual(pod.trainer.calls, ['prepare fresh', 'train 0-2', 'train 2-4']);
  });

  it('takes the pod for lost when its copy of the checkpoint is gone: a reset may ask for what the job has deleted', async () => {
    const gone = input({
      fromEpoch: 2,
      untilEpoch: 4,
      checkpointFile: `${pod.jobDirectory}/checkpoints/gone.safetensors`,
    });
    assert.equal(await codeOf(run(gone)), 'POD_LOST');
  });

  it('restores the checkpoint when the trainer stands elsewhere, in the middle of an epoch too', async () => {
    const first = await run();
    pod.trainer.onStep = (step) => (step === 7 ? Promise.reject(new Error('boom')) : Promise.resolve());
    const next = input({ fromEpoch: 2, untilEpoch: 4, checkpointFile: first.checkpointFile });
    assert.equal(await codeOf(run(next)), 'INTERNAL');
    pod.trainer.onStep = () => Promise.resolve();
    assert.equal((await run(next)).stepsRun, 12);
    assert.deepEqual(pod.trainer.calls.slice(2), ['train 2-4', 'prepare epoch-000002.safetensors', 'train 2-4']);
  });

  it('shows its progress in heartbeats', async () => {
    pod.trainer.stepMs = 15;
    const beats = heartbeatsOf(pod.environment);
    await run();
    const first = beats[0] as TrainProgress;
    assert.deepEqual([first.loss, first.stepsPerSecond, first.estimatedSeconds], [null, null, null]);
    const last = beats.at(-1) as Record<keyof TrainProgress, number>;
    assert.ok(beats.length >= 3);
    assert.deepEqual([last.totalEpochs, last.totalSteps], [4, 12]);
    assert.ok(last.step > 0 && last.stepsPerSecond > 0 && last.estimatedSeconds >= 0);
  });

  it('measures held-out pictures at the start, every so many epochs and at the end', async () => {
    const config = { ...CONFIG, validationPictures: 1, validationEveryEpochs: 3 };
    const first = await run(input({ config }));
    assert.deepEqual(first.validationLosses, [{ epoch: 0, loss: 0.5 }]);
    const rest = { config, fromEpoch: 2, untilEpoch: 4, checkpointFile: first.checkpointFile };
    const second = await run(input(rest));
    assert.deepEqual(second.validationLosses, [
      { epoch: 3, loss: 0.2 },
      { epoch: 4, loss: 0.1666667 },
    ]);
    const calls = ['prepare fresh', 'validate 0', 'train 0-2', 'train 2-3', 'validate 3', 'train 3-4', 'validate 4'];
    assert.deepEqual(pod.trainer.calls, calls);
    assert.deepEqual([second.stepsRun, second.epochLosses.length], [12, 2]);
  });

  it('does not measure again what the chunk before has measured, whether it resumes or not', async () => {
    const config = { ...CONFIG, validationPictures: 1, validationEveryEpochs: 2 };
    const { checkpointFile } = await run(input({ config }));
    const next = input({ config, fromEpoch: 2, untilEpoch: 4, checkpointFile });
    const undisturbed = await run(next);
    pod.trainer.onStep = () => Promise.reject(new Error('boom'));
    await codeOf(run(next));
    pod.trainer.onStep = () => Promise.resolve();
    assert.deepEqual((await run(next)).validationLosses, undisturbed.validationLosses);
    assert.deepEqual(undisturbed.validationLosses, [{ epoch: 4, loss: 0.1666667 }]);
  });

  it('measures nothing, and says nothing of it, without held-out pictures', async () => {
    const beats = heartbeatsOf(pod.environment);
    assert.ok(!('validationLosses' in (await run())));
    assert.ok(!beats.some((beat) => 'validationLoss' in (beat as TrainProgress)));
    assert.ok(!pod.trainer.calls.some((call) => call.startsWith('validate')));
  });

  it('shows the last measurement in heartbeats, and leaves out what is not finite', async () => {
    pod.trainer.stepMs = 15;
    pod.trainer.validationLossAt = (epoch) => (epoch === 1 ? NaN : 1 / (2 + epoch));
    const beats = heartbeatsOf(pod.environment);
    const { validationLosses } = await run(
      input({ config: { ...CONFIG, validationPictures: 1, validationEveryEpochs: 1 } }),
    );
    assert.deepEqual(
      validationLosses?.map(({ epoch }) => epoch),
      [0, 2],
    );
    assert.equal((beats[0] as TrainProgress).validationLoss, null);
    assert.ok(beats.some((beat) => (beat as TrainProgress).validationLoss === 0.5));
  });

  it('gives a measurement more time than a step, but not for ever', async () => {
    const config = { ...CONFIG, validationPictures: 1 };
    pod.deps.timing.stallMs = 50;
    pod.trainer.onValidate = () => new Promise((resolve) => setTimeout(resolve, 150));
    await run(input({ config }));
    pod.deps.timing.loadStallMs = 100;
    pod.trainer.onValidate = () => new Promise(() => undefined);
    const { checkpointFile } = await run(input({ config: CONFIG }));
    assert.equal(await codeOf(run(input({ config, checkpointFile }))), 'TRAINING_STALLED');
  });

  it('stops in a measurement when cancelled', async () => {
    pod.trainer.onValidate = () => new Promise((resolve) => setTimeout(resolve, 100));
    const running = run(input({ config: { ...CONFIG, validationPictures: 1 } }));
    await until(() => pod.trainer.calls.includes('validate 0'), 'measuring');
    pod.environment.cancel();
    await assert.rejects(running, CancelledFailure);
    assert.ok(!pod.trainer.calls.some((call) => call.startsWith('train')));
  });

  it('sends progress notices, and does not mind a backend that refuses them', async () => {
    pod.trainer.stepMs = 15;
    pod.backend.onNotice = () => {
      throw new Error('no');
    };
    await run();
    assert.ok(pod.backend.notices.length >= 2);
    const [first] = pod.backend.notices;
    assert.equal(first?.origin, 'https://backend.example');
    assert.ok(first && 'progress' in first.notice);
    assert.equal(first.notice.progress.total_epochs, 4);
  });

  it('sends no progress notice of a pod that was cut off, though it does not know it yet', async () => {
    pod.trainer.stepMs = 15;
    pod.fence.check = () => {
      throw new PodLostError('Frozen until now.');
    };
    await run();
    assert.deepEqual(pod.backend.notices, []);
  });

  it('stops at the next step when cancelled', async () => {
    pod.trainer.stepMs = 10;
    const running = run();
    await until(() => pod.trainer.calls.includes('train 0-2'), 'training');
    pod.environment.cancel();
    await assert.rejects(running, CancelledFailure);
    assert.ok(!pod.trainer.calls.includes('kill'));
    assert.ok(!existsSync(`${pod.jobDirectory}/checkpoints`));
  });

  it('fails as stalled, and ends the trainer, when no step is made for too long', async () => {
    pod.deps.timing.stallMs = 100;
    const beats = heartbeatsOf(pod.environment);
    pod.trainer.onStep = (step) => (step === 1 ? new Promise(() => undefined) : Promise.resolve());
    assert.equal(await codeOf(run()), 'TRAINING_STALLED');
    assert.ok(pod.trainer.calls.includes('kill'));
    const count = beats.length;
    await new Promise((resolve) => setTimeout(resolve, 60));
    assert.equal(beats.length, count, 'no heartbeat after the stall');
  });

  it('gives loading more time than a step', async () => {
    pod.deps.timing.stallMs = 50;
    pod.trainer.onPrepare = () => new Promise((resolve) => setTimeout(resolve, 150));
    await run();
  });

  /** Each of the two epochs has three steps. */
  function trainWithLosses(losses: number[]): void {
    pod.trainer.train = async (untilEpoch, onStep) => {
      await Promise.resolve();
      losses.forEach((loss, step) => {
        onStep({ step, epoch: Math.floor(step / 3), loss, timesteps: [1], learningRate: 1, durationMs: 1 });
      });
      return { position: { epochsRun: untilEpoch, microStepsRun: 6, optimizerStepsRun: 6 }, stopped: false };
    };
  }

  it('leaves steps without a finite loss, which fp16 skips, out of the means', async () => {
    trainWithLosses([NaN, 1, 3, 0.5, Infinity, 0.5]);
    assert.deepEqual((await run()).epochLosses, [2, 0.5]);
  });

  it('fails when a whole epoch has no finite loss', async () => {
    trainWithLosses([1, 1, 1, NaN, NaN, NaN]);
    assert.equal(await codeOf(run()), 'LOSS_NOT_FINITE');
  });

  it('fails as lost when the hold ends under it', async () => {
    pod.trainer.stepMs = 10;
    const running = run();
    await until(() => pod.trainer.calls.includes('train 0-2'), 'training');
    pod.fence.close(pod.holdId, new PodLostError('gone'));
    assert.equal(await codeOf(running), 'POD_LOST');
  });

  it('leaves the trainer alone when the hold ends later: it may serve the next job', async () => {
    await run();
    const timers = mock.timers;
    timers.enable({ apis: ['setTimeout'] });
    try {
      pod.fence.close(pod.holdId, new PodLostError('over'));
      timers.tick(60_000);
    } finally {
      timers.reset();
    }
    assert.ok(!pod.trainer.calls.includes('kill'));
  });

  it('ends a trainer that does not stop after a cancel', async () => {
    pod.trainer.onStep = (step) => (step === 1 ? new Promise(() => undefined) : Promise.resolve());
    const running = run();
    await until(() => pod.trainer.calls.includes('train 0-2'), 'training');
    await new Promise((resolve) => setTimeout(resolve, 20));
    const timers = mock.timers;
    timers.enable({ apis: ['setTimeout'] });
    try {
      pod.environment.cancel();
      timers.tick(6_000);
    } finally {
      timers.reset();
    }
    await assert.rejects(running, CancelledFailure);
    assert.ok(pod.trainer.calls.includes('kill'));
  });

  it('does not begin for a job that does not hold the pod', async () => {
    assert.equal(await codeOf(run(input({ holdId: 'another' }))), 'POD_LOST');
    assert.deepEqual(pod.trainer.calls, []);
  });
});
