import { mkdir, statfs, utimes } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PodRest } from '../activities/pod-rest.ts';
import { reasonOf } from '../common/logger.ts';
import type { Trainer } from '../common/trainer.ts';

const MIB_BYTES = 2 ** 20;
/** Starting a trainer and waking a GPU takes seconds. */
const TRAINER_LIMIT_MS = 120_000;

/** What a pod trains with. */
export interface PodMeans {
  /** Where the files of jobs go. */
  scratch: string;
  /** What must be free there. */
  minFreeDiskMiB: number;
  trainer: Pick<Trainer, 'runtime' | 'kill'>;
  rest: Pick<PodRest, 'reason'>;
  /** Rejects when the store is of no use, see {@link storeCheck}. */
  checkStore: () => Promise<void>;
  /** After which a trainer that does not answer is ended; default: 120 s. */
  trainerLimitMs?: number;
}

/**
 * Makes the look at a pod that holds no job: whether it could train one.
 *
 * @param means - what it trains with
 * @returns a function that answers null, or what is wrong and what to do about it; it never rejects
 */
export function podCheck(means: PodMeans): () => Promise<string | null> {
  const { scratch, minFreeDiskMiB, trainer, rest, checkStore, trainerLimitMs = TRAINER_LIMIT_MS } = means;
  // A trainer that hangs in the driver may not even die. What is wrong has been told by then; no other is started beside it.
  let ended: Promise<void> = Promise.resolve();
  return async () => {
    try {
      if (rest.reason !== null) return rest.reason;
      // What sweeps old files away may have taken it; each job makes its own directory in it.
      await mkdir(scratch, { recursive: true, mode: 0o700 });
      // A sign of life: others that share the work directory remove what nobody has touched for long.
      await utimes(scratch, new Date(), new Date());
      const { bavail, bsize } = await statfs(scratch);
      if (bavail * bsize < minFreeDiskMiB * MIB_BYTES) {
        return `Less than ${minFreeDiskMiB} MiB (pod.minFreeDiskMiB) are free in ${scratch}: make room there.`;
      }
      await checkStore();
      await ended;
      const fault = await findTrainerFault(trainer, trainerLimitMs);
      // What is wrong with a process need not be wrong with the next one.
      if (fault !== null) ended = trainer.kill();
      return fault;
    } catch (error) {
      return reasonOf(error);
    }
  };
}

async function findTrainerFault(trainer: Pick<Trainer, 'runtime'>, limitMs: number): Promise<string | null> {
  const timer = new AbortController();
  const late = sleep(limitMs, 'late' as const, { signal: timer.signal, ref: false }).catch(() => 'late' as const);
  try {
    if ((await Promise.race([trainer.runtime(), late])) !== 'late') return null;
    return `The trainer did not answer for ${limitMs / 1000} s: check the GPU with nvidia-smi and dmesg.`;
  } catch (error) {
    return reasonOf(error);
  } finally {
    timer.abort();
  }
}
