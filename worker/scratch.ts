import { randomUUID } from 'node:crypto';
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { hostname } from 'node:os';
import path from 'node:path';
import { isAlive } from '../common/is-alive.ts';

/** Role, machine and process. Earlier versions left the machine out. */
const NAME = /^(pod|control)-(?:(.+)-)?(\d+)-[0-9a-f]+$/;
/** Longer than any job may take (`activities.holdPod.startToClose`), and than an idle pod goes without a sign of life there. */
const ABANDONED_MS = 7 * 24 * 3_600_000;

/**
 * Makes this process's own directory for the files of jobs, and removes those of this machine's processes that are gone: a
 * pod that was killed cleans up when it comes back. Those of other machines that nobody has touched for a week go too: a
 * container that was lost does not come back under its name.
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
    if (owner !== role) continue;
    const directory = path.join(workDirectory, name);
    // A container gives each of its lives the same process id.
    const isOver = place === machine && (Number(pid) === process.pid || !isAlive(Number(pid)));
    // What lives on another machine can't be seen from here.
    if (isOver || (place !== machine && (await isAbandoned(directory))))
      await rm(directory, { recursive: true, force: true });
  }
  const name = `${role}-${machine}-${process.pid}-${randomUUID().replaceAll('-', '')}`;
  const directory = path.join(workDirectory, name);
  await mkdir(directory, { mode: 0o700 });
  return directory;
}

async function isAbandoned(directory: string): Promise<boolean> {
  const found = await stat(directory).catch(() => null);
  return found !== null && Date.now() - found.mtimeMs > ABANDONED_MS;
}
