import { randomUUID } from 'node:crypto';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import path from 'node:path';
import { isAlive } from '../common/is-alive.ts';

/** Role, machine and process. */
const NAME = /^(pod|control)-(.+)-(\d+)-[0-9a-f]+$/;

/**
 * Makes this process's own directory for the files of jobs, and removes those of this machine's processes that are gone: a
 * pod that was killed cleans up when it comes back.
 *
 * @param workDirectory - shared by all workers of this machine, and where it lies on a network by those of others
 * @param role - of this process, each of which has a directory
 * @param machine - that it runs on; a container is one
 */
export async function openScratch(
  workDirectory: string,
  role: 'pod' | 'control',
  machine: string = hostname(),
): Promise<string> {
  await mkdir(workDirectory, { recursive: true, mode: 0o700 });
  for (const name of await readdir(workDirectory)) {
    const [, owner, place, pid] = NAME.exec(name) ?? [];
    // What lives on another machine can't be seen from here.
    if (owner !== role || place !== machine) continue;
    // A container gives each of its lives the same process id.
    if (Number(pid) !== process.pid && isAlive(Number(pid))) continue;
    await rm(path.join(workDirectory, name), { recursive: true, force: true });
  }
  const name = `${role}-${machine}-${process.pid}-${randomUUID().replaceAll('-', '')}`;
  const directory = path.join(workDirectory, name);
  await mkdir(directory, { mode: 0o700 });
  return directory;
}
