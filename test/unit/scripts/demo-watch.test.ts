import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { WorkflowHandle } from '@temporalio/client';
import { defaultPayloadConverter } from '@temporalio/common';
import { watchJob } from '../../../scripts/demo/watch.ts';
import type { Progress } from '../../../cli/progress.ts';
import type { TrainProgress } from '../../../common/activity-types.ts';

/** One look at a job: its heartbeat, and its status or null when the answer gets lost. */
interface Scene {
  running?: boolean;
  step?: number;
  phase: string | null;
}

const TOTAL_STEPS = 20;
const TOTAL_EPOCHS = 10;

/** A job that shows one scene after another; the last one stays. */
function jobOf(scenes: Scene[]): WorkflowHandle {
  let looks = 0;
  let scene: Scene = { phase: null };
  const fake = {
    client: {
      withDeadline: (deadlineMs: number, call: () => Promise<unknown>) =>
        Promise.race([
          call(),
          sleep(deadlineMs - Date.now()).then(() => {
            throw new Error('deadline');
          }),
        ]),
    },
    query: () => {
      scene = scenes[Math.min(looks, scenes.length - 1)] ?? scene;
      const epoch = ((scene.step ?? TOTAL_STEPS) / TOTAL_STEPS) * TOTAL_EPOCHS;
      return scene.phase === null
        ? new Promise(() => undefined)
        : Promise.resolve({ phase: scene.phase, reason: null, epoch, loss: 0.5 });
    },
    describe: () => {
      looks += 1;
      const { running = true, step } = scene;
      const beat: TrainProgress = {
        epoch: 0,
        totalEpochs: TOTAL_EPOCHS,
        step: step ?? 0,
        totalSteps: TOTAL_STEPS,
        loss: 0.7,
        stepsPerSecond: 2,
        estimatedSeconds: 5,
      };
      const activity = {
        activityType: { name: 'trainEpochChunk' },
        heartbeatDetails: { payloads: [defaultPayloadConverter.toPayload(beat)] },
      };
      const pendingActivities = step === undefined ? [] : [activity];
      return Promise.resolve({ status: { name: running ? 'RUNNING' : 'COMPLETED' }, raw: { pendingActivities } });
    },
    result: () => Promise.resolve({ modelUri: 's3://styles/model', loss: 0.5, epochs: TOTAL_EPOCHS, podLosses: 0 }),
  };
  return fake as unknown as WorkflowHandle;
}

describe('watching a job of the demo', function () {
  this.timeout(15_000);

  async function watch(scenes: Scene[]): Promise<{ phases: string[]; progress: Progress[]; modelUri: string }> {
    const phases: string[] = [];
    const progress: Progress[] = [];
    const events = {
      onPhase: (phase: string) => phases.push(phase),
      onProgress: (one: Progress) => progress.push(one),
      onLastStep: () => phases.push('all steps done'),
    };
    const { modelUri } = await watchJob(jobOf(scenes), events, new AbortController().signal);
    return { phases, progress, modelUri };
  }

  it('tells each phase once, the progress, and ends with a full bar', async () => {
    const { phases, progress, modelUri } = await watch([
      { phase: 'training', step: 4 },
      { phase: 'training', step: 18 },
      { phase: 'done', running: false },
    ]);
    assert.deepEqual(phases, ['training', 'done']);
    assert.deepEqual(
      progress.map(({ epoch, loss, remainingSeconds }) => [epoch, loss, remainingSeconds]),
      [
        [2, 0.7, 5],
        [9, 0.7, 5],
        [10, 0.5, 0],
      ],
    );
    assert.equal(modelUri, 's3://styles/model');
  });

  it('tells the end of the steps once, however long the pod draws, and repeats no figures', async () => {
    const drawing = { phase: 'training', step: TOTAL_STEPS };
    const { phases, progress } = await watch([
      { phase: 'training', step: 18 },
      drawing,
      drawing,
      drawing,
      { phase: 'publishing' },
      { phase: 'done', running: false },
    ]);
    assert.deepEqual(phases, ['training', 'all steps done', 'publishing', 'done']);
    assert.deepEqual(
      progress.map(({ epoch }) => epoch),
      [9, 10],
    );
  });

  it('shows the progress also while an answer of the workflow is lost', async () => {
    const { phases, progress } = await watch([
      { phase: 'training', step: 4 },
      { phase: null, step: 8 },
      { phase: 'done', running: false },
    ]);
    assert.deepEqual(phases, ['training', 'done']);
    assert.deepEqual(
      progress.slice(0, 2).map(({ epoch }) => epoch),
      [2, 4],
    );
  });

  it('ends with its signal', async () => {
    const stop = new AbortController();
    const events = { onPhase: () => stop.abort(), onProgress: () => undefined, onLastStep: () => undefined };
    await assert.rejects(watchJob(jobOf([{ phase: 'training', step: 4 }]), events, stop.signal), /abort/i);
  });
});
