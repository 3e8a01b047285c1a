import { existsSync, readFileSync, renameSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS = 20;

/** Moments of a job at which the fault tests may hold a process. Listed once, here: the tests run through all of them. */
export const FAULT_POINTS = [
  // bridge
  'bridge:received',
  'bridge:started',
  // pod worker
  'hold:taken',
  'hold:announced',
  'download:begin',
  'download:pictures',
  'download:checkpoint',
  'train:begin',
  'train:step',
  'train:saved',
  'checkpoint:begin',
  'checkpoint:data',
  'checkpoint:manifest',
  'checkpoint:end',
  'upload:begin',
  'upload:exported',
  'upload:end',
  // trainer
  'trainer:load',
  'trainer:encode',
  'trainer:restore',
  'trainer:save',
  'trainer:export',
  // control worker
  'inspect:begin',
  'inspect:end',
  'resume:begin',
  'resume:end',
  'promote:begin',
  'promote:copied',
  'promote:end',
  'notify:begin',
  'notify:taken',
] as const;

/** See {@link FAULT_POINTS}. */
export type FaultPoint = (typeof FAULT_POINTS)[number];

let directory: string | null = null;

/**
 * Makes this process stop where a test wants it to.
 *
 * @param armed - directory in which tests put a file `<point>.<task id>` to arm a point
 */
export function enableFaultPoints(armed: string): void {
  directory = armed;
}

/**
 * A moment at which the fault tests may hold this process; nothing at all where they are not enabled. An armed point is
 * disarmed by whoever reaches it first: it renames the file to `<point>.<task id>.<process id>` and waits until a test
 * removes that. Written into the file, `block <ms>` blocks the event loop meanwhile.
 *
 * @param point - the moment
 * @param taskId - the job
 */
export async function faultPoint(point: FaultPoint, taskId: string): Promise<void> {
  if (directory === null) return;
  const reached = path.join(directory, `${point}.${taskId}.${process.pid}`);
  try {
    renameSync(path.join(directory, `${point}.${taskId}`), reached);
  } catch {
    return;
  }
  while (existsSync(reached)) {
    blockIfAsked(reached);
    await sleep(POLL_MS);
  }
}

function blockIfAsked(file: string): void {
  try {
    const blockMs = /^block (\d+)$/.exec(readFileSync(file, 'utf8'))?.[1];
    if (blockMs !== undefined) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(blockMs));
  } catch {
    // Released meanwhile.
  }
}
