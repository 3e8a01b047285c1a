import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../integration/support/until.ts';
import type { Moment, Place } from './moments.ts';
import type { Reached, Scene } from './support/scene.ts';
import { FENCE_MS, HOLD_MS, childrenOf, freeze, resume, signal } from './support/world.ts';
import type { Helper, Pod, World } from './support/world.ts';

/** How a job may end. */
export type Outcome = 'complete' | 'cancelled' | 'failed' | 'terminated';

/** Something that goes wrong, or that an operator does, at a moment of a job. */
export interface Fault {
  name: string;
  /** What it is, in a few words. */
  about: string;
  /** Moments at which it makes sense. */
  places: Place[];
  /** It hits all jobs: those of one batch are struck together. */
  isShared?: boolean;
  /** Further condition on the moment. */
  suits?: (moment: Moment) => boolean;
  /** How the job must end; default: complete. */
  outcome?: (moment: Moment) => Outcome;
  /** Runs of the workflow; default: 1. */
  runs?: number;
  /** Does it. A held process goes on when {@link Reached.release} was called, at the latest after this. */
  strike: (scene: Scene, reached: Reached) => Promise<void>;
}

const ON_POD: Place[] = ['pod', 'trainer'];
const EVERYWHERE: Place[] = ['bridge', 'pod', 'trainer', 'control'];
const isStarted = (moment: Moment) => moment.name !== 'bridge:received';

/** Longer than a pod may be silent, and longer than it takes the pod to notice. */
const LONG_MS = FENCE_MS + 2_500;
/** What was begun before may still arrive. */
const SETTLE_MS = 500;
/** Too short for anybody to notice. */
const SHORT_MS = HOLD_MS / 2;

async function podOf(scene: Scene, reached: Reached): Promise<Pod> {
  const pod = (reached.pid === null ? undefined : scene.world.podWithProcess(reached.pid)) ?? (await scene.holder());
  if (pod === undefined) throw new Error('No pod works on this job.');
  return pod;
}

/** Undefined where an earlier fault took it and no job has needed one since. */
async function trainerOf(scene: Scene, reached: Reached): Promise<number | undefined> {
  const { worker } = await podOf(scene, reached);
  return worker.pid === undefined ? undefined : childrenOf(worker.pid)[0];
}

function helperOf(world: World, role: Helper['role']): Helper {
  const [helper] = world.helpersOf(role);
  if (helper === undefined) throw new Error(`No ${role} runs.`);
  return helper;
}

/** Ends the trainer by a signal. */
const trainerEndedBy =
  (name: NodeJS.Signals): Fault['strike'] =>
  async (scene, reached) => {
    signal(await trainerOf(scene, reached), name);
    reached.release();
  };

/** Breaks one of the pod's links for a while. */
const podLinkBroken =
  (link: 'temporal' | 's3', how: 'cut' | 'stall', durationMs: number): Fault['strike'] =>
  async (scene, reached) => {
    const pod = await podOf(scene, reached);
    pod[link][how]();
    if (durationMs > FENCE_MS) scene.zombies.push({ pod, sinceMs: Date.now() + FENCE_MS + SETTLE_MS });
    reached.release();
    await sleep(durationMs);
    pod[link].heal();
  };

/** Breaks one of the control worker's links for a while. */
const controlLinkBroken =
  (link: 'temporal' | 's3', how: 'cut' | 'stall', durationMs: number): Fault['strike'] =>
  async ({ world }, reached) => {
    const helper = helperOf(world, 'control');
    helper[link][how]();
    reached.release();
    await sleep(durationMs);
    helper[link].heal();
  };

/** Kills a helper and starts another one, after a while. */
const helperKilled =
  (role: Helper['role'], goneMs: number): Fault['strike'] =>
  async ({ world }, reached) => {
    await helperOf(world, role).worker.kill();
    reached.release();
    await sleep(goneMs);
    await world.startHelper(role);
  };

/** Kills a part and starts it again, after a while. */
const partKilled =
  (part: 'temporal' | 'rabbitmq' | 's3', goneMs: number): Fault['strike'] =>
  async ({ world }, reached) => {
    const { parts } = world.service.stack;
    await parts[part].kill();
    reached.release();
    await sleep(goneMs);
    await parts[part].start();
  };

const workflowId = ({ job }: Scene) => `train-style-${job.styleId}`;

async function reset(scene: Scene): Promise<void> {
  const how = ['--reset_type', 'FirstWorkflowTask', '--reason', 'a fault test'];
  await scene.world.tctl('workflow', 'reset', '--workflow_id', workflowId(scene), ...how);
}

/** Does something to pending activities with `temporal activity`; those that have ended meanwhile are no fault. */
const activitiesTold =
  (chosen: (name: string) => boolean, verbs: readonly string[], pauseMs: number): Fault['strike'] =>
  async (scene, reached) => {
    const activities = (await scene.pendingActivities()).filter(({ name }) => chosen(name));
    const [first, ...others] = verbs;
    const tell = (verb: string) =>
      activities.map(({ id }) =>
        scene.world.temporal('activity', verb, '--workflow-id', workflowId(scene), '--activity-id', id),
      );
    if (first !== undefined) await Promise.allSettled(tell(first));
    reached.release();
    await sleep(pauseMs);
    for (const verb of others) await Promise.allSettled(tell(verb));
  };

const isHold = (name: string) => name === 'holdPod';
const isWork = (name: string) => !isHold(name);

/** Every fault that is struck at moments. */
export const FAULTS: readonly Fault[] = [
  {
    name: 'pod-killed',
    about: 'SIGKILL of the pod worker',
    places: ON_POD,
    strike: async (scene, reached) => (await podOf(scene, reached)).worker.kill(),
  },
  {
    name: 'pod-leaves',
    about: 'SIGTERM of the pod worker, SIGKILL 5 s later',
    places: ON_POD,
    strike: async (scene, reached) => {
      const { worker } = await podOf(scene, reached);
      signal(worker.pid, 'SIGTERM');
      reached.release();
      await sleep(5_000);
      await worker.kill();
    },
  },
  {
    name: 'pod-frozen',
    about: 'SIGSTOP of pod worker and trainer for longer than the hold, then SIGCONT',
    places: ON_POD,
    strike: async (scene, reached) => {
      const pod = await podOf(scene, reached);
      pod.isFrozen = true;
      freeze(pod.worker.pid);
      void scene.world.fillPods();
      reached.release();
      await sleep(HOLD_MS + 1_000 + scene.random() * 6_000);
      scene.zombies.push({ pod, sinceMs: Date.now() });
      resume(pod.worker.pid);
      pod.isFrozen = false;
    },
  },
  {
    name: 'pod-blocked',
    about: "the pod worker's event loop blocked for longer than the hold",
    places: ['pod'],
    suits: ({ upload }) => upload === undefined,
    strike: async (scene, reached) => {
      scene.zombies.push({ pod: await podOf(scene, reached), sinceMs: Date.now() + SETTLE_MS });
      reached.block(LONG_MS);
      await sleep(LONG_MS);
    },
  },
  {
    name: 'pod-partitioned',
    about: 'the pod cut off from Temporal, connections left open, for longer than the hold',
    places: ON_POD,
    strike: podLinkBroken('temporal', 'stall', LONG_MS),
  },
  {
    name: 'pod-cut-off',
    about: 'the pod cut off from Temporal, connections refused, for longer than the hold',
    places: ON_POD,
    strike: podLinkBroken('temporal', 'cut', LONG_MS),
  },
  {
    name: 'pod-hiccup',
    about: 'the pod cut off from Temporal for less than the hold',
    places: ON_POD,
    strike: podLinkBroken('temporal', 'stall', SHORT_MS),
  },
  {
    name: 'pod-reset',
    about: 'every connection of the pod reset',
    places: ON_POD,
    strike: async (scene, reached) => {
      const pod = await podOf(scene, reached);
      pod.temporal.reset();
      pod.s3.reset();
      reached.release();
    },
  },
  {
    name: 'pod-far-away',
    about: "everything between the pod and Temporal comes 300 ms later, until the job's end",
    places: ON_POD,
    strike: async (scene, reached) => {
      const pod = await podOf(scene, reached);
      pod.temporal.delay(300);
      reached.release();
      await scene.closed();
      pod.temporal.heal();
    },
  },
  {
    name: 'pod-without-store',
    about: 'the pod cut off from the store for 3 s',
    places: ON_POD,
    strike: podLinkBroken('s3', 'cut', 3_000),
  },
  {
    name: 'pod-store-stalls',
    about: 'the store does not answer the pod for 3 s',
    places: ON_POD,
    strike: podLinkBroken('s3', 'stall', 3_000),
  },
  { name: 'trainer-killed', about: 'SIGKILL of the trainer', places: ON_POD, strike: trainerEndedBy('SIGKILL') },
  { name: 'trainer-segfault', about: 'SIGSEGV in the trainer', places: ON_POD, strike: trainerEndedBy('SIGSEGV') },
  { name: 'trainer-aborts', about: 'SIGABRT in the trainer', places: ON_POD, strike: trainerEndedBy('SIGABRT') },
  {
    name: 'trainer-stuck',
    about: 'the trainer hangs for ever',
    places: ON_POD,
    strike: async (scene, reached) => {
      signal(await trainerOf(scene, reached), 'SIGSTOP');
      reached.release();
    },
  },
  {
    name: 'control-killed',
    about: 'SIGKILL of the only control worker, another one started at once',
    places: EVERYWHERE,
    isShared: true,
    strike: helperKilled('control', 0),
  },
  {
    name: 'control-gone',
    about: 'no control worker for 8 s',
    places: EVERYWHERE,
    isShared: true,
    strike: helperKilled('control', 8_000),
  },
  {
    name: 'control-partitioned',
    about: 'the control worker cut off from Temporal for 6 s, connections left open',
    places: ['control'],
    isShared: true,
    strike: controlLinkBroken('temporal', 'stall', 6_000),
  },
  {
    name: 'control-without-store',
    about: 'the control worker cut off from the store for 3 s',
    places: ['control'],
    isShared: true,
    strike: controlLinkBroken('s3', 'cut', 3_000),
  },
  {
    name: 'bridge-killed',
    about: 'SIGKILL of the only bridge, another one started at once',
    places: ['bridge'],
    isShared: true,
    strike: helperKilled('bridge', 0),
  },
  {
    name: 'bridge-cut-off',
    about: "the bridge's connection to RabbitMQ reset",
    places: ['bridge'],
    isShared: true,
    strike: async ({ world }, reached) => {
      helperOf(world, 'bridge').amqp.reset();
      reached.release();
    },
  },
  {
    name: 'bridge-without-temporal',
    about: 'the bridge cut off from Temporal for 3 s',
    places: ['bridge'],
    isShared: true,
    strike: async ({ world }, reached) => {
      const { temporal } = helperOf(world, 'bridge');
      temporal.cut();
      reached.release();
      await sleep(3_000);
      temporal.heal();
    },
  },
  {
    name: 'temporal-restarted',
    about: 'Temporal killed and started again at once',
    places: EVERYWHERE,
    isShared: true,
    strike: partKilled('temporal', 0),
  },
  {
    name: 'temporal-gone',
    about: 'no Temporal for longer than the hold',
    places: EVERYWHERE,
    isShared: true,
    strike: partKilled('temporal', LONG_MS),
  },
  {
    name: 'rabbitmq-restarted',
    about: 'RabbitMQ killed and started again',
    places: ['bridge'],
    isShared: true,
    strike: partKilled('rabbitmq', 0),
  },
  {
    name: 'store-restarted',
    about: 'the S3 server killed and started again 2 s later',
    places: ['pod', 'trainer', 'control'],
    isShared: true,
    strike: partKilled('s3', 2_000),
  },
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
      await reset(scene);
      reached.release();
    },
  },
  {
    name: 'work-paused',
    about: '`temporal activity pause` of what runs on the pod, `unpause` 3 s later',
    places: ON_POD,
    strike: activitiesTold(isWork, ['pause', 'unpause'], 3_000),
  },
  {
    name: 'work-reset',
    about: '`temporal activity reset` of what runs on the pod',
    places: ON_POD,
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
    places: ON_POD,
    outcome: () => 'terminated',
    strike: async (scene, reached) => {
      await scene.world.tctl('workflow', 'terminate', '--workflow_id', workflowId(scene), '--reason', 'a fault test');
      reached.release();
    },
  },
];
