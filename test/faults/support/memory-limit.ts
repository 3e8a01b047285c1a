import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../../integration/support/until.ts';

/** Memory groups of cgroup v1. With v2 a process can't be put into a group below its parent's while that one is in use. */
const GROUPS = '/sys/fs/cgroup/memory';
const DEATH_LIMIT_MS = 30_000;

/** Whether this machine lets us limit the memory of a single process. */
export function canLimitMemory(): boolean {
  const group = path.join(GROUPS, `brushwork-probe-${process.pid}`);
  try {
    mkdirSync(group);
    rmdirSync(group);
    return existsSync(path.join(GROUPS, 'memory.limit_in_bytes'));
  } catch {
    return false;
  }
}

/** Lets the kernel's out-of-memory killer take a process as soon as it wants more memory, and waits until it has. */
export async function starve(pid: number): Promise<void> {
  const group = path.join(GROUPS, `brushwork-${pid}`);
  mkdirSync(group);
  try {
    writeFileSync(path.join(group, 'cgroup.procs'), String(pid));
    // What it has already is counted where it came from: not one page more.
    writeFileSync(path.join(group, 'memory.limit_in_bytes'), '0');
    await until(() => isGone(pid), 'the out-of-memory killer', DEATH_LIMIT_MS);
  } finally {
    await removed(group);
  }
}

function isGone(pid: number): boolean {
  try {
    return readFileSync(`/proc/${pid}/status`, 'utf8').includes('State:\tZ');
  } catch {
    return true;
  }
}

/** A group can go only after the last process in it has been waited for. */
async function removed(group: string): Promise<void> {
  for (let tries = 0; tries < 50; tries++) {
    try {
      rmdirSync(group);
      return;
    } catch {
      await sleep(100);
    }
  }
}
