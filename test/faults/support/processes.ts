import { readFileSync, readdirSync } from 'node:fs';

/** Process ids of the children of a process. */
export function childrenOf(pid: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((child) => parentOf(child) === pid);
}

/** Process id of the parent, or null where the process is gone. */
export function parentOf(pid: number): number | null {
  try {
    // pid (name) state ppid …; the name may hold anything, a bracket too.
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]);
  } catch {
    return null;
  }
}

/** Sends a signal to a process that may be gone. */
export function signal(pid: number | undefined, name: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(pid, name);
  } catch {
    // It is gone.
  }
}

/** Lets a process and its children go on. */
export function resume(pid: number | undefined): void {
  if (pid === undefined) return;
  for (const one of [pid, ...childrenOf(pid)]) signal(one, 'SIGCONT');
}

/** Freezes a process and its children. */
export function freeze(pid: number | undefined): void {
  if (pid === undefined) return;
  for (const one of [pid, ...childrenOf(pid)]) signal(one, 'SIGSTOP');
}
