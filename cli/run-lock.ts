import { readFile, rm, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import path from 'node:path';
import { InvalidRequestError } from '../common/errors.ts';
import { isAlive } from '../common/is-alive.ts';

interface Holder {
  pid: number;
  host: string;
}

/**
 * Runs `work` as the only run that writes to a directory. What a process that was killed has left is taken over.
 *
 * @param directory - exists
 * @param work - runs alone
 * @throws InvalidRequestError while another run writes there; whatever `work` throws
 */
export async function aloneIn<Result>(directory: string, work: () => Promise<Result>): Promise<Result> {
  const file = path.join(directory, 'run.lock');
  const own: Holder = { pid: process.pid, host: hostname() };
  while (!(await isNew(file, own))) {
    const holder = await readHolder(file);
    if (holder !== null && (holder.host !== own.host || isAlive(holder.pid))) {
      throw new InvalidRequestError(
        `Another run writes to ${directory} (process ${holder.pid} on ${holder.host}): name another --output, or wait for ` +
          `it. If that process is none of Brushwork's, delete ${file}.`,
      );
    }
    await rm(file, { force: true });
  }
  try {
    return await work();
  } finally {
    await rm(file, { force: true });
  }
}

async function isNew(file: string, holder: Holder): Promise<boolean> {
  try {
    await writeFile(file, JSON.stringify(holder), { flag: 'wx' });
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'EEXIST') return false;
    throw error;
  }
}

/** Null where the lock is gone or torn. */
async function readHolder(file: string): Promise<Holder | null> {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as Holder;
  } catch {
    return null;
  }
}
