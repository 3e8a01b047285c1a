import { PodLostError } from '../common/errors.ts';

/** The pod's own disk is full or fails: the pod is of no use to any job until that is mended. */
export class PodDiskError extends PodLostError {}

const SIGNS: readonly { pattern: RegExp; message: string }[] = [
  {
    pattern: /\b(ENOSPC|EDQUOT)\b|no space left on device|disk quota exceeded/i,
    message:
      'The disk of this pod is full: free space in its work directory (BRUSHWORK_WORK_DIRECTORY). The job goes on elsewhere.',
  },
  {
    pattern: /\b(EIO|EROFS)\b|input\/output error|read-only file system/i,
    message:
      'The disk of this pod fails: look at its log, and take the machine out if that happens again. The job goes on elsewhere.',
  },
];

/** What says so: the disk's own error, or a sentence of ours or of the trainer's that quotes it. */
function says(error: unknown, pattern: RegExp): boolean {
  return error instanceof Error && (pattern.test(error.message) || says(error.cause, pattern));
}

/**
 * A pod whose disk is full or broken is of no use to the job, and others have disks of their own: it counts as lost.
 *
 * @param error - what work on a pod failed with
 * @returns what it shall fail with
 */
export function lostWithDisk(error: unknown): unknown {
  const sign = SIGNS.find(({ pattern }) => says(error, pattern));
  return sign === undefined ? error : new PodDiskError(sign.message, { cause: error });
}
