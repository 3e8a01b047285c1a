import { randomUUID } from 'node:crypto';
import { mkdir, readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { isAlive } from '../common/is-alive.ts';

const NAME = /^(pod|control)-(\d+)-[0-9a-f]+$/;

/**
 * Makes this process's own directory for the files of jobs, and removes those of processes that are gone: a pod that was
 * killed cleans up when it comes back.
 *
 * @param workDirectory - shared by all workers of this machine
 * @param role - of this process, each of which has a directory
 */
export async function openScratch(workDirectory: string, role: 'pod' | 'control'): Promise<string> {
  await mkdir(workDirectory, { recursive: true, mode: 0o700 });
  for (const name of await readdir(workDirectory)) {
    const [, owner, pid] = NAME.exec(name) ?? [];
    // A container gives each of its lives the same process id.
    if (owner !== role || (Number(pid) !== process.pid && isAlive(Number(pid)))) continue;
    await rm(path.join(workDirectory, name), { recursive: true, force: true });
  }
  const directory = path.join(workDirectory, `${role}-${process.pid}-${randomUUID().replaceAll('-', '')}`);
  await mkdir(directory, { mode: 0o700 });
  return directory;
}
