import { setTimeout as sleep } from 'node:timers/promises';
import type { Fault } from './fault-case.ts';
import type { Moment, Place } from './moments.ts';
import type { Reached, Scene } from './support/scene.ts';
import { childrenOf, signal } from './support/processes.ts';
import { FENCE_MS, HOLD_MS } from './support/settings.ts';
import type { Helper, Pod, World } from './support/world.ts';

/** Moments of the pod and its trainer. */
export const ON_POD: Place[] = ['pod', 'trainer'];
/** Moments of every process. */
export const EVERYWHERE: Place[] = ['bridge', 'pod', 'trainer', 'control'];
/** Whether the workflow runs by then. */
export const isStarted = (moment: Moment) => moment.name !== 'bridge:received';

/** Longer than a pod may be silent, and longer than it takes the pod to notice. */
export const LONG_MS = FENCE_MS + 2_500;
/** What was begun before may still arrive. */
export const SETTLE_MS = 500;
/** Too short for anybody to notice. */
export const SHORT_MS = HOLD_MS / 2;

/** The pod that works on the job. */
export async function podOf(scene: Scene, reached: Reached): Promise<Pod> {
  const pod = (reached.pid === null ? undefined : scene.world.podWithProcess(reached.pid)) ?? (await scene.holder());
  if (pod === undefined) throw new Error('No pod works on this job.');
  return pod;
}

/** Undefined where an earlier fault took it and no job has needed one since. */
export async function trainerOf(scene: Scene, reached: Reached): Promise<number | undefined> {
  const { worker } = await podOf(scene, reached);
  return worker.pid === undefined ? undefined : childrenOf(worker.pid)[0];
}

/** A bridge or a control worker that runs. */
export function helperOf(world: World, role: Helper['role']): Helper {
  const [helper] = world.helpersOf(role);
  if (helper === undefined) throw new Error(`No ${role} runs.`);
  return helper;
}

/** Ends the trainer by a signal. */
export const trainerEndedBy =
  (name: NodeJS.Signals): Fault['strike'] =>
  async (scene, reached) => {
    signal(await trainerOf(scene, reached), name);
    reached.release();
  };

/** Breaks one of the pod's links for a while. */
export const podLinkBroken =
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
export const controlLinkBroken =
  (link: 'temporal' | 's3', how: 'cut' | 'stall', durationMs: number): Fault['strike'] =>
  async ({ world }, reached) => {
    const helper = helperOf(world, 'control');
    helper[link][how]();
    reached.release();
    await sleep(durationMs);
    helper[link].heal();
  };

/** Kills a helper and starts another one, after a while. */
export const helperKilled =
  (role: Helper['role'], goneMs: number): Fault['strike'] =>
  async ({ world }, reached) => {
    await helperOf(world, role).worker.kill();
    reached.release();
    await sleep(goneMs);
    await world.startHelper(role);
  };

/** Kills a part and starts it again, after a while. */
export const partKilled =
  (part: 'temporal' | 'rabbitmq' | 's3', goneMs: number): Fault['strike'] =>
  async ({ world }, reached) => {
    const { parts } = world.service.stack;
    await parts[part].kill();
    reached.release();
    await sleep(goneMs);
    await parts[part].start();
  };

/** Of the job. */
export const workflowId = ({ job }: Scene) => `train-style-${job.styleId}`;

/** Resets the job, as `tctl`'s options say. */
export async function resetTo(scene: Scene, options: string[]): Promise<void> {
  await scene.world.tctl(
    'workflow',
    'reset',
    '--workflow_id',
    workflowId(scene),
    ...options,
    '--reason',
    'a fault test',
  );
}

/** Does something to pending activities with `temporal activity`; those that have ended meanwhile are no fault. */
export const activitiesTold =
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

/** Whether an activity is the hold. */
export const isHold = (name: string) => name === 'holdPod';
/** Whether an activity is work on the pod. */
export const isWork = (name: string) => !isHold(name);
