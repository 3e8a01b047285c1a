import { PodLostError } from '../common/errors.ts';

const NO_SPACE = /\b(ENOSPC|EDQUOT)\b|no space left on device|disk quota exceeded/i;

/** What says so: the disk's own error, or a sentence of ours or of the trainer's that quotes it. */
function saysNoSpace(error: unknown): boolean {
  return error instanceof Error && (NO_SPACE.test(error.message) || saysNoSpace(error.cause));
}

/**
 * A pod whose disk is full is of no use to the job, and others have disks of their own: it counts as lost.
 *
 * @param error - what work on a pod failed with
 * @returns what it shall fail with
 */
export function lostWithFullDisk(error: unknown): unknown {
  if (!saysNoSpace(error)) return error;
  return new PodLostError(
    'The disk of this pod is full: free space in its work directory (BRUSHWORK_WORK_DIRECTORY). The job goes on elsewhere.',
    { cause: error },
  );
}
