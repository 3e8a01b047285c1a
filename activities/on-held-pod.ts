import { Context } from '@temporalio/activity';
import { lostWithFullDisk } from './disk-full.ts';
import type { PodFence } from './pod-fence.ts';

/** What an activity on a held pod may rely on. */
export interface HeldPodScope {
  /** Aborts when the activity is cancelled, the worker leaves, or the hold ends. */
  signal: AbortSignal;
  /** Throws unless the job still holds the pod; to be called before every write to the bucket. */
  checkFence: () => void;
}

/**
 * Wraps an activity of the private queue: it runs only while its job holds the pod, and fails with the reason when the
 * hold ends.
 *
 * @param fence - the pod's
 * @param activity - the work
 */
export function onHeldPod<Input extends { holdId: string }, Result>(
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
      throw signal.aborted ? signal.reason : lostWithFullDisk(error);
    } finally {
      held.leave();
    }
  };
}
