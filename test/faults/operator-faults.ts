import { until } from '../integration/support/until.ts';
import type { Fault } from './fault-case.ts';
import type { Moment } from './moments.ts';
import type { Scene } from './support/scene.ts';
import {
  ON_POD,
  EVERYWHERE,
  isStarted,
  podOf,
  workflowId,
  resetTo,
  activitiesTold,
  isHold,
  isWork,
} from './strikes.ts';

/** Moments of work that takes long enough to be told something meanwhile. */
const atWork = ({ place, name }: Moment) => place !== 'control' || name.startsWith('inspect:');

/** A reset of the workflow; `point` says to where. */
function reset(name: string, about: string, point: (scene: Scene) => Promise<string[]>): Fault {
  return {
    name,
    about,
    places: EVERYWHERE,
    suits: (moment) => isStarted(moment) && moment.name !== 'bridge:started',
    runs: 2,
    strike: async (scene, reached) => {
      await resetTo(scene, await point(scene));
      reached.release();
    },
  };
}

/** What operators do, at any moment. */
export const OPERATORS: readonly Fault[] = [
  {
    name: 'cancel',
    about: '`tctl workflow cancel`',
    places: EVERYWHERE,
    suits: isStarted,
    outcome: ({ isLate }) => (isLate === true ? 'complete' : 'cancelled'),
    strike: async (scene, reached) => {
      await scene.world.tctl('workflow', 'cancel', '--workflow_id', workflowId(scene));
      reached.release();
    },
  },
  {
    name: 'cancel-and-kill',
    about: '`tctl workflow cancel`, and SIGKILL of the pod at the same time',
    places: ON_POD,
    outcome: ({ isLate }) => (isLate === true ? 'complete' : 'cancelled'),
    strike: async (scene, reached) => {
      const pod = await podOf(scene, reached);
      await scene.world.tctl('workflow', 'cancel', '--workflow_id', workflowId(scene));
      await pod.worker.kill();
    },
  },
  {
    name: 'pause',
    about: '`tctl workflow signal` with `pauseTraining`, then `resumeTraining`',
    places: EVERYWHERE,
    suits: isStarted,
    strike: async (scene, reached) => {
      const send = (name: string) =>
        scene.world.tctl('workflow', 'signal', '--workflow_id', workflowId(scene), '--name', name);
      await send('pauseTraining');
      reached.release();
      const isPaused = async () => (await scene.isClosed()) || (await scene.status())?.phase === 'paused';
      await until(isPaused, 'phase paused', 60_000);
      if (!(await scene.isClosed())) await send('resumeTraining');
    },
  },
  reset('reset', '`tctl workflow reset --reset_type FirstWorkflowTask`', () =>
    Promise.resolve(['--reset_type', 'FirstWorkflowTask']),
  ),
  reset('reset-to-last', '`tctl workflow reset --reset_type LastWorkflowTask`', () =>
    Promise.resolve(['--reset_type', 'LastWorkflowTask']),
  ),
  reset(
    'reset-to-event',
    '`tctl workflow reset --event_id`, to any workflow task that has been done',
    async (scene) => {
      const { events } = await scene.handle.fetchHistory();
      const done = (events ?? []).filter((event) => event.workflowTaskCompletedEventAttributes);
      const chosen = done[Math.floor(scene.random() * done.length)];
      return ['--event_id', String(chosen?.eventId ?? '')];
    },
  ),
  {
    name: 'work-paused',
    about: '`temporal activity pause` of what is at work, `unpause` 3 s later',
    places: [...ON_POD, 'control'],
    suits: atWork,
    strike: activitiesTold(isWork, ['pause', 'unpause'], 3_000),
  },
  {
    name: 'work-reset',
    about: '`temporal activity reset` of what is at work',
    places: [...ON_POD, 'control'],
    suits: atWork,
    strike: activitiesTold(isWork, ['reset'], 0),
  },
  {
    name: 'hold-paused',
    about: '`temporal activity pause` of the hold, `unpause` 3 s later',
    places: ON_POD,
    strike: activitiesTold(isHold, ['pause', 'unpause'], 3_000),
  },
  {
    name: 'hold-reset',
    about: '`temporal activity reset` of the hold',
    places: ON_POD,
    strike: activitiesTold(isHold, ['reset'], 0),
  },
  {
    name: 'terminate',
    about: '`tctl workflow terminate`',
    places: [...ON_POD, 'control'],
    suits: atWork,
    outcome: () => 'terminated',
    strike: async (scene, reached) => {
      await scene.world.tctl('workflow', 'terminate', '--workflow_id', workflowId(scene), '--reason', 'a fault test');
      reached.release();
    },
  },
];
