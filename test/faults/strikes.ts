import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../integration/support/until.ts';
import type { Fault } from './fault-case.ts';
import type { Moment, Place } from './moments.ts';
import type { Reached, Scene } from './support/scene.ts';
import type { Link } from './support/link.ts';
import { childrenOf, freeze, resume } from './support/processes.ts';
import { FENCE_MS, HOLD_MS } from './support/settings.ts';
import type { Helper, Pod, World } from './support/world.ts';

/** Moments of the pod and its trainer. */
export const ON_POD: Place[] = ['pod', 'trainer'];
/** Moments of every process. */
export const EVERYWHERE: Place[] = ['bridge', 'pod', 'trainer', 'control'];
/** Whether the workflow runs by then. */
export const isStarted = (moment: Moment) => moment.name !== 'bridge:received';

/** Of what is held there, or comes after it on the same machine, something goes to the store. */
export const usesStoreLater = ({ name }: Moment) => !/^(upload:end|promote:end|notify:)/.test(name);

/** Longer than a pod may be silent, and longer than it takes the pod to notice. */
export const LONG_MS = FENCE_MS + 2_500;
/** What was begun before may still arrive. */
export const SETTLE_MS = 500;
/** What uses a link uses it within this. */
const MEET_LIMIT_MS = 40_000;
/** Too short for anybody to notice. */
export const SHORT_MS = HOLD_MS / 2;

/** The pod that works on the job. */
export async function podOf(scene: Scene, reached: Reached): Promise<Pod> {
  const pod = (reached.pid === null ? undefined : scene.world.podWithProcess(reached.pid)) ?? (await scene.holder());
  if (pod === undefined || !pod.worker.isRunning) throw new Error('No pod works on this job.');
  return pod;
}

/** The trainer of the pod that works on the job: a pod looks at it before it takes a job, so there is one. */
export async function trainerOf(scene: Scene, reached: Reached): Promise<number> {
  const { worker } = await podOf(scene, reached);
  const [trainer] = worker.pid === undefined ? [] : childrenOf(worker.pid);
  if (trainer === undefined) throw new Error('The pod has no trainer.');
  return trainer;
}

/** Kills the pod whose process is held. */
export async function killPodWith(scene: Scene, pid: number | null): Promise<void> {
  const pod = pid === null ? undefined : scene.world.podWithProcess(pid);
  if (pod === undefined || !pod.worker.isRunning) throw new Error('No pod is held.');
  await pod.worker.kill();
}

/** A bridge or a control worker that runs. */
export function helperOf(world: World, role: Helper['role']): Helper {
  const [helper] = world.helpersOf(role);
  if (helper === undefined) throw new Error(`No ${role} runs.`);
  return helper;
}

/** Stops pod worker and trainer for a while; another pod is started meanwhile. */
export const frozenFor =
  (durationMs: number): Fault['strike'] =>
  async (scene, reached) => {
    const pod = await podOf(scene, reached);
    pod.isFrozen = true;
    freeze(pod.worker.pid);
    void scene.world.fillPods();
    reached.release();
    await sleep(durationMs);
    scene.loses(pod, 0);
    resume(pod.worker.pid);
    pod.isFrozen = false;
  };

/** Sends the trainer a signal. */
export const trainerToldBy =
  (name: NodeJS.Signals): Fault['strike'] =>
  async (scene, reached) => {
    process.kill(await trainerOf(scene, reached), name);
    reached.release();
  };

/** Breaks a link for a while, and at least until somebody meets that. */
async function breakLink(link: Link, how: 'cut' | 'stall', durationMs: number, reached: Reached): Promise<void> {
  link[how]();
  reached.release();
  try {
    await sleep(durationMs);
    await until(() => link.isMet, 'somebody who meets the broken link', MEET_LIMIT_MS);
  } finally {
    link.heal();
  }
}

/** Breaks one of the pod's links for a while. */
export const podLinkBroken =
  (link: 'temporal' | 's3', how: 'cut' | 'stall', durationMs: number): Fault['strike'] =>
  async (scene, reached) => {
    const pod = await podOf(scene, reached);
    if (link === 'temporal' && durationMs > FENCE_MS) scene.loses(pod, FENCE_MS + SETTLE_MS);
    await breakLink(pod[link], how, durationMs, reached);
  };

/** Breaks one of a helper's links for a while. */
export const helperLinkBroken =
  (role: Helper['role'], link: 'temporal' | 's3' | 'amqp', how: 'cut' | 'stall', durationMs: number): Fault['strike'] =>
  async ({ world }, reached) =>
    breakLink(helperOf(world, role)[link], how, durationMs, reached);

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
  async ({ world, batch }, reached) => {
    const { parts } = world.service.stack;
    const isLong = part === 'temporal' && goneMs > FENCE_MS;
    const holders = isLong ? await Promise.all(batch.map((scene) => scene.holder().catch(() => undefined))) : [];
    await parts[part].kill();
    for (const [index, pod] of holders.entries()) if (pod !== undefined) batch[index]?.loses(pod, FENCE_MS + SETTLE_MS);
    reached.release();
    await sleep(goneMs);
    await parts[part].start();
  };

/** Of the job. */
const workflowId = ({ job }: Scene) => `train-style-${job.styleId}`;

/** Does something to pending activities with `temporal activity`; of several, some may have ended meanwhile. */
export const activitiesTold =
  (chosen: (name: string) => boolean, verbs: readonly string[], pauseMs: number): Fault['strike'] =>
  async (scene, reached) => {
    const activities = (await scene.pendingActivities()).filter(({ name }) => chosen(name));
    const [first = '', ...others] = verbs;
    const tell = (verb: string) =>
      Promise.allSettled(
        activities.map(({ id }) =>
          scene.world.temporal('activity', verb, '--workflow-id', workflowId(scene), '--activity-id', id),
        ),
      );
    const told = await tell(first);
    if (!told.some(({ status }) => status === 'fulfilled'))
      throw new Error(`No activity took ${first}: ${JSON.stringify(told)}`);
    reached.release();
    await sleep(pauseMs);
    for (const verb of others) await tell(verb);
  };

/** Whether an activity is the hold. */
export const isHold = (name: string) => name === 'holdPod';
/** Whether an activity is work that the job waits for. */
export const isWork = (name: string) => !isHold(name) && name !== 'notifyProgress';
