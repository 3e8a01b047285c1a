import { Context } from '@temporalio/activity';
import { existsSync } from 'node:fs';
import { PodLostError } from '../common/errors.ts';
import { lostWithDisk } from './disk-fault.ts';
import type { PodFence } from './pod-fence.ts';

/** What an activity on a held pod may rely on. */
export interface HeldPodScope {
  /** Aborts when the activity is cancelled, the worker leaves, or the hold ends. */
  signal: AbortSignal;
  /** Throws unless the job still holds the pod; to be called before every write to the bucket. */
  checkFence: () => void;
}

/** What every activity of the private queue is told. */
export interface PodWorkInput {
  holdId: string;
  /** On the pod's disk, where the activity goes on from one. */
  checkpointFile?: string | null;
}

/**
 * Wraps an activity of the private queue: it runs only while its job holds the pod, and fails with the reason when the
 * hold ends.
 *
 * @param fence - the pod's
 * @param activity - the work
 */
export function onHeldPod<Input extends PodWorkInput, Result>(
  fence: PodFence,
  activity: (input: Input, scope: HeldPodScope) => Promise<Result>,
): (input: Input) => Promise<Result> {
  return async (input) => {
    const held = fence.enter(input.holdId);
    const signal = AbortSignal.any([Context.current().cancellationSignal, held.signal]);
    try {
      return await activity(input, { signal, checkFence: () => fence.check(input.holdId) });
    } catch (error) {
      // What an aborted call fails with says nothing: the reason of the abort does.
      throw signal.aborted ? signal.reason : lostWithCheckpoint(lostWithDisk(error), input);
    } finally {
      held.leave();
    }
  };
}

/** Before a reset the job may have come further on this pod: it then deleted the file that it is asked for now. */
function lostWithCheckpoint(error: unknown, { checkpointFile = null }: PodWorkInput): unknown {
  if (error instanceof PodLostError || checkpointFile === null || existsSync(checkpointFile)) return error;
  return new PodLostError("The pod's copy of the checkpoint is gone. The job goes on from the one in the bucket.", {
    cause: error,
  });
}
