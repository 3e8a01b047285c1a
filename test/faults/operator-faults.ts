import { until } from '../integration/support/until.ts';
import type { Fault } from './fault-case.ts';
import type { Moment } from './moments.ts';
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
  {
    name: 'reset',
    about: '`tctl workflow reset --reset_type FirstWorkflowTask`',
    places: EVERYWHERE,
    suits: (moment) => isStarted(moment) && moment.name !== 'bridge:started',
    runs: 2,
    strike: async (scene, reached) => {
      await resetTo(scene, ['--reset_type', 'FirstWorkflowTask']);
      reached.release();
    },
  },
  {
    name: 'reset-to-last',
    about: '`tctl workflow reset --reset_type LastWorkflowTask`',
    places: EVERYWHERE,
    suits: (moment) => isStarted(moment) && moment.name !== 'bridge:started',
    runs: 2,
    strike: async (scene, reached) => {
      await resetTo(scene, ['--reset_type', 'LastWorkflowTask']);
      reached.release();
    },
  },
  {
    name: 'reset-to-event',
    about: '`tctl workflow reset --event_id`, to any workflow task that has been done',
    places: EVERYWHERE,
    suits: (moment) => isStarted(moment) && moment.name !== 'bridge:started',
    runs: 2,
    strike: async (scene, reached) => {
      const { events } = await scene.handle.fetchHistory();
      const done = (events ?? []).filter((event) => event.workflowTaskCompletedEventAttributes);
      const chosen = done[Math.floor(scene.random() * done.length)];
      await resetTo(scene, ['--event_id', String(chosen?.eventId ?? '')]);
      reached.release();
    },
  },
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
