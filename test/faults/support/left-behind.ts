import { readdirSync } from 'node:fs';
import path from 'node:path';
import type { LinkedProcess } from './world.ts';

/** Files in the work directory of a process that runs, which no other process may see. */
export function leftBehind({ worker, disk }: LinkedProcess): string[] {
  const directory = path.join(`/proc/${worker.pid}/root`, disk);
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => path.relative(directory, path.join(parentPath, name)));
}
