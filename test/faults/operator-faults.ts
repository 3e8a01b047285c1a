import { until } from '../integration/support/until.ts';
import { press } from './buttons.ts';
import type { Fault } from './fault-case.ts';
import type { Moment } from './moments.ts';
import type { Reached, Scene } from './support/scene.ts';
import { ON_POD, EVERYWHERE, isStarted, podOf, activitiesTold, isHold, isWork } from './strikes.ts';
import { HOLD_MS } from './support/settings.ts';
import { trainerIdles } from './support/idle-trainer.ts';

/** Moments of work that takes long enough to be told something meanwhile. */
const atWork = ({ place, name }: Moment) => place !== 'control' || name.startsWith('inspect:');

/** The same without what holds the pod: beside that there may be none. */
const hasWork = (moment: Moment) => atWork(moment) && !moment.name.startsWith('hold:');

/** Up to here a pause finds training that it can stop. */
const canPause = ({ name, place, isResumed }: Moment) =>
  isResumed === true ||
  (name !== 'checkpoint:last' && (place === 'control' ? /^(inspect|resume)/ : /^(?!upload|trainer:export)/).test(name));

/** The pod that works on the job, if one does, loses it by what is done now. */
async function losesPod(scene: Scene, reached: Reached, how: () => Promise<void>): Promise<void> {
  const pod = await podOf(scene, reached).catch(() => null);
  await how();
  if (pod !== null) scene.loses(pod, HOLD_MS);
}

/** A reset of the workflow; `point` says to where. */
function reset(name: string, about: string, point: (scene: Scene) => Promise<string>): Fault {
  return {
    name,
    about: (tool) => `\`${tool} workflow reset\` ${about}`,
    places: EVERYWHERE,
    suits: (moment) => isStarted(moment) && moment.name !== 'bridge:started',
    runs: 2,
    strike: async (scene, reached) => {
      const to = await point(scene);
      await losesPod(scene, reached, () => press(scene, `reset ${to}`));
      reached.release();
    },
  };
}

/** What operators do, at any moment. */
export const OPERATORS: readonly Fault[] = [
  {
    name: 'cancel',
    about: (tool) => `\`${tool} workflow cancel\``,
    places: EVERYWHERE,
    suits: isStarted,
    outcome: ({ isLate }) => (isLate === true ? 'complete' : 'cancelled'),
    strike: async (scene, reached) => {
      const pod = await podOf(scene, reached).catch(() => null);
      const askedAtMs = Date.now();
      await press(scene, 'cancel');
      reached.release();
      if (pod !== null) await trainerIdles(scene, pod, askedAtMs);
    },
  },
  {
    name: 'cancel-and-kill',
    about: (tool) => `\`${tool} workflow cancel\`, and SIGKILL of the pod at the same time`,
    places: ON_POD,
    outcome: ({ isLate }) => (isLate === true ? 'complete' : 'cancelled'),
    strike: async (scene, reached) => {
      const pod = await podOf(scene, reached);
      await press(scene, 'cancel');
      await pod.worker.kill();
    },
  },
  {
    name: 'pause',
    about: (tool) => `\`${tool} workflow signal\` with \`pauseTraining\`, then \`resumeTraining\``,
    places: EVERYWHERE,
    suits: isStarted,
    strike: async (scene, reached) => {
      await press(scene, 'signal pauseTraining');
      reached.release();
      const isPaused = async () => (await scene.status())?.phase === 'paused';
      await until(async () => (await scene.isClosed()) || (await isPaused()), 'phase paused', 60_000);
      if (!(await scene.isClosed())) await press(scene, 'signal resumeTraining');
      else if (canPause(reached.moment)) throw new Error('The job did not pause.');
    },
  },
  reset('reset', 'to the first workflow task', () => Promise.resolve('FirstWorkflowTask')),
  reset('reset-to-last', 'to the last workflow task', () => Promise.resolve('LastWorkflowTask')),
  reset('reset-to-event', 'to any workflow task that has been done', async (scene) => {
    const { events } = await scene.handle.fetchHistory();
    const done = (events ?? []).filter((event) => event.workflowTaskCompletedEventAttributes);
    const chosen = done[Math.floor(scene.random() * done.length)];
    return String(chosen?.eventId ?? '');
  }),
  {
    name: 'work-paused',
    about: '`temporal activity pause` of what is at work, `unpause` 3 s later',
    places: [...ON_POD, 'control'],
    suits: hasWork,
    strike: activitiesTold(isWork, ['pause', 'unpause'], 3_000),
  },
  {
    name: 'work-reset',
    about: '`temporal activity reset` of what is at work',
    places: [...ON_POD, 'control'],
    suits: hasWork,
    strike: activitiesTold(isWork, ['reset'], 0),
  },
  {
    name: 'hold-paused',
    about: '`temporal activity pause` of the hold, `unpause` 3 s later',
    places: ON_POD,
    strike: (scene, reached) =>
      losesPod(scene, reached, () => activitiesTold(isHold, ['pause', 'unpause'], 3_000)(scene, reached)),
  },
  {
    name: 'hold-reset',
    about: '`temporal activity reset` of the hold',
    places: ON_POD,
    strike: (scene, reached) => losesPod(scene, reached, () => activitiesTold(isHold, ['reset'], 0)(scene, reached)),
  },
  {
    name: 'terminate',
    about: (tool) => `\`${tool} workflow terminate\``,
    places: [...ON_POD, 'control'],
    suits: atWork,
    outcome: () => 'terminated',
    strike: async (scene, reached) => {
      await losesPod(scene, reached, () => press(scene, 'terminate'));
      reached.release();
    },
  },
];
