import { setTimeout as sleep } from 'node:timers/promises';
import type { TrainPhase } from '../../common/types.ts';
import { until } from '../integration/support/until.ts';
import { press, toolOf } from './buttons.ts';
import type { Button } from './buttons.ts';
import { fromTheStart, idOf } from './fault-case.ts';
import type { FaultCase, Outcome } from './fault-case.ts';
import { momentOf } from './moments.ts';
import type { Scene } from './support/scene.ts';

const PHASE_LIMIT_MS = 60_000;
const POLL_MS = 10_000;
/** Longer than a notice that is on its way may take. */
const NOTICE_MS = 2_500;

const podsQueueOf = ({ job }: Scene) => `brushwork-pods-${job.styleId}`;
/** The job waits for a pod that nobody has started, and one that is lost makes it ask. */
const withoutPods = (scene: Scene) => ({ workflow: { podLossBudget: 1 }, queues: { pods: podsQueueOf(scene) } });

async function phaseIs(scene: Scene, phase: TrainPhase): Promise<void> {
  const isReached = async () => (await scene.status())?.phase === phase;
  await until(isReached, `phase ${phase}`, PHASE_LIMIT_MS);
}

/** Takes the job as a pod would, and is lost. */
async function loseAPod(scene: Scene): Promise<void> {
  const { client } = scene.world.service;
  const taskQueue = { name: podsQueueOf(scene) };
  const { taskToken } = await client.withDeadline(Date.now() + POLL_MS, () =>
    client.workflowService.pollActivityTaskQueue({ namespace: 'default', taskQueue }),
  );
  const failure = { message: 'The pod is gone.', applicationFailureInfo: { type: 'POD_LOST' } };
  await client.workflowService.respondActivityTaskFailed({ namespace: 'default', taskToken, failure });
}

/** Where a job may wait for long: how it gets there without a pod. */
const WAITS: Partial<Record<TrainPhase, (scene: Scene) => Promise<unknown>>> = {
  'waiting-for-pod': () => Promise.resolve(),
  paused: (scene) => scene.handle.signal('pauseTraining'),
  'awaiting-operator': loseAPod,
};

/** What ends the waiting, and how the job ends then. */
const BUTTONS: { fault: string; button: Button; outcome: Outcome; only?: TrainPhase }[] = [
  { fault: 'cancel', button: 'cancel', outcome: 'cancelled' },
  { fault: 'terminate', button: 'terminate', outcome: 'terminated' },
  { fault: 'reset', button: 'reset FirstWorkflowTask', outcome: 'complete' },
  { fault: 'retry-now', button: 'signal retryNow', outcome: 'complete', only: 'awaiting-operator' },
  { fault: 'give-up', button: 'signal giveUp', outcome: 'failed', only: 'awaiting-operator' },
];

function aboutOf(fault: string, moment: string, button: Button): string {
  return `\`${toolOf(idOf({ fault, moment }))} workflow ${button}\``;
}

/** Of a button for one phase only there is a case with each program. */
function momentsOf(phase: string, only?: TrainPhase): string[] {
  if (only !== undefined) return [`${phase}, by temporal`, `${phase}, by tctl`];
  return [phase === 'waiting-for-pod' ? `${phase}, without any` : phase];
}

const waiting = Object.entries(WAITS).flatMap(([phase, getThere]) =>
  BUTTONS.filter(({ only }) => only === undefined || only === phase)
    .flatMap((button) => momentsOf(phase, button.only).map((moment) => ({ ...button, moment })))
    .map(({ fault, button, outcome, moment }): FaultCase => {
      return fromTheStart(fault, moment, aboutOf(fault, moment, button), {
        outcome,
        runs: fault === 'reset' ? 2 : 1,
        needsOperator: phase === 'awaiting-operator',
        ...(outcome === 'failed' && { errorCode: 'POD_LOST' }),
        prepare: async (scene) => void (await scene.startApart(['bridge'], withoutPods(scene))),
        reach: async (scene) => {
          await phaseIs(scene, 'waiting-for-pod');
          await getThere(scene);
          await phaseIs(scene, phase as TrainPhase);
          return null;
        },
        strike: async (scene) => {
          await press(scene, button);
          if (outcome === 'complete') await scene.startApart(['pod'], withoutPods(scene));
        },
      });
    }),
);

const NOTIFYING = 'notifying, with the backend down';

const notifying = BUTTONS.filter(({ only }) => only === undefined).map(({ fault, button, outcome }): FaultCase => {
  return fromTheStart(fault, NOTIFYING, aboutOf(fault, NOTIFYING, button), {
    // The weights are in place: a cancel comes too late.
    outcome: outcome === 'cancelled' ? 'complete' : outcome,
    isPublished: true,
    runs: fault === 'reset' ? 2 : 1,
    prepare: (scene) => scene.backend.setBehaviour({ cut: 'before-accepting', kinds: ['complete'] }),
    reach: async (scene) => {
      const triesOn = async () => (await scene.status())?.reason?.includes('Trying on') === true;
      await until(triesOn, 'a backend that does not answer', PHASE_LIMIT_MS);
      return null;
    },
    strike: async (scene) => {
      await press(scene, button);
      await sleep(NOTICE_MS);
      scene.backend.setBehaviour(null);
    },
  });
});

/** Buttons that are pressed while a job waits for something, for as long as it takes. */
export const inStates: readonly FaultCase[] = [...waiting, ...notifying];

function redone(name: string, more: Partial<FaultCase>, getThere: (scene: Scene) => Promise<void>): FaultCase {
  const moment = `the end, as ${name}`;
  const button = 'reset FirstWorkflowTask';
  return fromTheStart('reset', moment, aboutOf('reset', moment, button), {
    ...{ ...more, runs: 2, maxTold: 2, isAfterEnd: true },
    prepare: (scene) => (name === 'cancelled' ? scene.arm(momentOf('train:step')) : undefined),
    reach: async (scene) => {
      await getThere(scene);
      await scene.closed();
      return null;
    },
    strike: async (scene) => {
      await press(scene, button);
      scene.reopened();
    },
  });
}

/** Jobs that are done once more. */
export const afterTheEnd: readonly FaultCase[] = [
  redone('complete', {}, () => Promise.resolve()),
  redone('cancelled', { toldBefore: 'failed', errorCode: 'CANCELLED' }, async (scene) => {
    const { release } = await scene.reach(momentOf('train:step'));
    await scene.handle.cancel();
    release();
  }),
];
