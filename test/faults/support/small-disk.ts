import { execFileSync } from 'node:child_process';
import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import path from 'node:path';

const SIZE_MIB = 32;
const BLOCK = Buffer.alloc(2 ** 16);

/** Whether this machine lets us mount a file system for a single process. */
export function canMount(): boolean {
  try {
    execFileSync('unshare', ['--mount', 'mount', '-t', 'tmpfs', 'brushwork', '/mnt'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/**
 * Command before a command: it runs with a small file system of its own below `directory`, which nobody else sees and which
 * goes with the process.
 *
 * @param directory - there already
 */
export function onSmallDisk(directory: string): string[] {
  const script = `mount -t tmpfs -o size=${SIZE_MIB}m,mode=700 brushwork "$0" && exec "$@"`;
  return ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', script, directory];
}

const fillerOf = (pid: number, directory: string) => path.join(`/proc/${pid}/root`, directory, 'filler');

/** Takes up all space on the small disk of a process. */
export function fillDisk(pid: number, directory: string): void {
  const file = openSync(fillerOf(pid, directory), 'w');
  try {
    for (;;) writeSync(file, BLOCK);
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error) || error.code !== 'ENOSPC') throw error;
  } finally {
    closeSync(file);
  }
}

/** Gives it back, where the process still lives. */
export function clearDisk(pid: number, directory: string): void {
  rmSync(fillerOf(pid, directory), { force: true });
}
