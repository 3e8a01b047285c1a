import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { childrenOf } from './processes.ts';
import type { Scene } from './scene.ts';
import type { Pod } from './world.ts';

const LIMIT_MS = 10_000;
const WINDOW_MS = 400;

/** Processor time that a process has used, in clock ticks; null where it is gone. */
function ticksOf(pid: number): number | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // Behind the name, which may hold anything: state is the first field, time as user and in the kernel are 12th and 13th.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return Number(fields[11]) + Number(fields[12]);
  } catch {
    return null;
  }
}

/** Whether the pod's trainer computes nothing, or is gone. */
async function isIdle({ worker }: Pod): Promise<boolean> {
  const [trainer] = worker.pid === undefined || !worker.isRunning ? [] : childrenOf(worker.pid);
  const before = trainer === undefined ? null : ticksOf(trainer);
  if (trainer === undefined || before === null) return true;
  await sleep(WINDOW_MS);
  return (ticksOf(trainer) ?? before) - before <= 1;
}

/**
 * Waits until a pod's trainer has stopped after its job was cancelled: it is idle or has ended, or the pod has taken another
 * job, which it does not before.
 *
 * @throws when it takes longer than 10 s
 */
export async function trainerIdles(scene: Scene, pod: Pod, askedAtMs: number): Promise<void> {
  const hasAnotherJob = () =>
    pod.worker.lines.some(({ atMs, task }) => atMs > askedAtMs && task !== undefined && task !== scene.job.taskId);
  while (Date.now() < askedAtMs + LIMIT_MS) {
    // Before the end it may be idle only because it waits for the next chunk.
    if (hasAnotherJob() || ((await scene.isClosed()) && (await isIdle(pod)))) return;
    await sleep(WINDOW_MS / 4);
  }
  if (!hasAnotherJob() && !(await isIdle(pod))) throw new Error('The trainer still works 10 s after the cancel.');
}
