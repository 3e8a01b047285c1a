import { statfs } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import type { PodRest } from '../activities/pod-rest.ts';
import { reasonOf } from '../common/logger.ts';
import type { ObjectStore } from '../common/object-store.ts';
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
  store: Pick<ObjectStore, 'probe'>;
  bucket: string;
  /** After which a trainer that does not answer is ended; default: 120 s. */
  trainerLimitMs?: number;
}

/**
 * Looks whether a pod that holds no job could train one.
 *
 * @returns null, or what is wrong and what to do about it
 */
export async function findPodFault({
  scratch,
  minFreeDiskMiB,
  trainer,
  rest,
  store,
  bucket,
  trainerLimitMs = TRAINER_LIMIT_MS,
}: PodMeans): Promise<string | null> {
  try {
    if (rest.reason !== null) return rest.reason;
    const { bavail, bsize } = await statfs(scratch);
    const freeMiB = Math.floor((bavail * bsize) / MIB_BYTES);
    if (freeMiB < minFreeDiskMiB) {
      return `${freeMiB} MiB are free in ${scratch}, and pod.minFreeDiskMiB asks for ${minFreeDiskMiB}: make room there.`;
    }
    await store.probe(bucket);
    return await findTrainerFault(trainer, trainerLimitMs);
  } catch (error) {
    return reasonOf(error);
  }
}

async function findTrainerFault(trainer: PodMeans['trainer'], limitMs: number): Promise<string | null> {
  try {
    const timer = new AbortController();
    const late = sleep(limitMs, 'late' as const, { signal: timer.signal, ref: false }).catch(() => 'late' as const);
    const answer = await Promise.race([trainer.runtime(), late]).finally(() => timer.abort());
    if (answer !== 'late') return null;
    await trainer.kill();
    return `The trainer did not answer for ${limitMs / 1000} s: check the GPU with nvidia-smi and dmesg.`;
  } catch (error) {
    // What is wrong with a process need not be wrong with the next one.
    await trainer.kill();
    return reasonOf(error);
  }
}
