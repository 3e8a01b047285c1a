import { readFileSync } from 'node:fs';
import { type BrushworkError, GpuFaultError, GpuOutOfMemoryError } from '../../common/errors.ts';

/** How a trainer process ended. */
export interface ChildExit {
  code: number | null;
  signal: NodeJS.Signals | null;
  /** Kills by the kernel for want of memory while the process lived, see {@link countOutOfMemoryKills}. */
  outOfMemoryKills: number;
  /** What it ran on; null where that was not known yet. */
  device: 'cpu' | 'cuda' | null;
  /** Its last words on stderr, oldest first. */
  lastLines: readonly string[];
}

const MEMORY_WORDS = /out of memory|bad_alloc|can't allocate memory|cannot allocate memory/i;

/**
 * Turns a trainer's unexpected end into a typed failure: out of memory where there are signs of it, else a fault.
 *
 * @param exit - how it ended
 * @returns an error whose message names the signal or code and quotes the last lines
 */
export function describeExit(exit: ChildExit): BrushworkError {
  const how = exit.signal === null ? `with exit code ${exit.code ?? 'unknown'}` : `by ${exit.signal}`;
  const words = exit.lastLines.length === 0 ? '' : ` Its last words: ${exit.lastLines.join(' | ')}`;
  const killedForMemory = exit.signal === 'SIGKILL' && exit.outOfMemoryKills > 0;
  if (killedForMemory || exit.lastLines.some((line) => MEMORY_WORDS.test(line))) {
    return new GpuOutOfMemoryError(
      `The trainer process ended ${how}: memory ran out. Lower batch_size or resolution, or use a machine with more memory.${words}`,
    );
  }
  return new GpuFaultError(
    `The trainer process ended ${how}. Started again, the training goes on from its last checkpoint; if this repeats, ${remedyFor(exit)}.${words}`,
  );
}

function remedyFor({ signal, device }: ChildExit): string {
  if (device !== 'cpu') return 'check the GPU (nvidia-smi, dmesg)';
  return signal === 'SIGKILL'
    ? 'look for who kills it: want of memory (dmesg, the limit of the container), a supervisor, a person'
    : 'check the memory of this machine (dmesg)';
}

/**
 * Processes that the kernel has killed for want of memory so far, in this process's memory group where that is known
 * (cgroup v2), else on the whole machine. Only differences mean something; 0 where the kernel tells nothing.
 */
export function countOutOfMemoryKills(): number {
  const group = /^0::(.*)$/m.exec(read('/proc/self/cgroup'))?.[1];
  const events = group === undefined ? '' : read(`/sys/fs/cgroup${group}/memory.events`);
  const count = /^oom_kill (\d+)$/m.exec(events) ?? /^oom_kill (\d+)$/m.exec(read('/proc/vmstat'));
  return Number(count?.[1] ?? 0);
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    return '';
  }
}
