import { randomUUID } from 'node:crypto';
import { readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

/** How often a holder says that it lives, and how often others look. */
const BEAT_MS = 2_000;

/** A holder that said nothing for this long is gone: a process that was killed leaves its lock behind. */
const STALE_MS = 30_000;

/** What {@link withFileLock} does while it waits. */
export interface LockOptions {
  signal: AbortSignal;
  /** Called once when somebody else holds the lock. */
  onWait: () => void;
}

/**
 * Runs `work` while no other process does the same under this lock, on this machine or another that shares the folder.
 * It saves work twice done, no more: what is written must be checked and renamed all the same.
 *
 * @param file - the lock; its folder exists
 * @param options - see {@link LockOptions}
 * @param work - runs alone
 * @throws an AbortError when the signal comes while waiting; whatever `work` throws
 */
export async function withFileLock<Result>(
  file: string,
  options: LockOptions,
  work: () => Promise<Result>,
): Promise<Result> {
  const id = randomUUID();
  let hasWaited = false;
  while (!(await take(file, id))) {
    if (!hasWaited) options.onWait();
    hasWaited = true;
    await sleep(BEAT_MS, undefined, { signal: options.signal });
  }
  const beat = setInterval(() => {
    const now = new Date();
    // Whoever removed the lock took it for stale: nothing to be done about it here.
    utimes(file, now, now).catch(() => undefined);
  }, BEAT_MS);
  try {
    return await work();
  } finally {
    clearInterval(beat);
    if ((await readOrNull(file)) === id) await rm(file, { force: true });
  }
}

async function take(file: string, id: string): Promise<boolean> {
  try {
    await writeFile(file, id, { flag: 'wx' });
    return true;
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
  }
  const ageMs = await stat(file).then(
    ({ mtimeMs }) => Date.now() - mtimeMs,
    () => 0,
  );
  if (ageMs > STALE_MS) await rm(file, { force: true });
  return false;
}

async function readOrNull(file: string): Promise<string | null> {
  return readFile(file, 'utf8').catch(() => null);
}
