import { setTimeout as sleep } from 'node:timers/promises';

/** Waits until `done`; fails with what was waited for. */
export async function until(
  done: () => boolean | Promise<boolean>,
  what: string | (() => string),
  timeoutMs = 60_000,
): Promise<void> {
  const deadlineMs = Date.now() + timeoutMs;
  while (!(await done())) {
    if (Date.now() > deadlineMs) {
      throw new Error(`Waited ${timeoutMs} ms in vain for ${typeof what === 'string' ? what : what()}`);
    }
    await sleep(50);
  }
}
