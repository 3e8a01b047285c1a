import { sleep } from '@temporalio/workflow';
import type { ActivityLimits } from '../common/types.ts';
import { jobFailureOf } from './failures.ts';
import type { JobFailure } from './failures.ts';

/** How {@link insistOn} tries. */
export interface Insistence {
  /** The pauses between tries, and (`scheduleToCloseMs`) how long to try. */
  limits: ActivityLimits;
  /** Whether another try can help. */
  mayPass: (failure: JobFailure) => boolean;
  /** Told before each pause why it is not done yet. */
  waiting: (failure: JobFailure) => void;
}

/**
 * Repeats an activity until it succeeds, for days if need be. Each try is an activity of its own that always ends with its
 * answer: a limit over several tries would cut one off that has done its work already.
 *
 * @param attempt - starts the activity; is told the number of the try, from 1
 * @throws the last error, when it can't pass or its time is over
 */
export async function insistOn<Result>(
  attempt: (tryCount: number) => Promise<Result>,
  { limits, mayPass, waiting }: Insistence,
): Promise<Result> {
  const { initialIntervalMs, backoffCoefficient, maximumIntervalMs } = limits.retry;
  const startedAtMs = Date.now();
  let pauseMs = initialIntervalMs;
  for (let tryCount = 1; ; tryCount++, pauseMs = Math.min(pauseMs * backoffCoefficient, maximumIntervalMs)) {
    try {
      return await attempt(tryCount);
    } catch (error) {
      const failure = jobFailureOf(error);
      const waitMs = Math.max(pauseMs, failure.retryAfterMs ?? 0);
      const isTooLate = Date.now() - startedAtMs + waitMs >= (limits.scheduleToCloseMs ?? Infinity);
      if (!mayPass(failure) || isTooLate) throw error;
      waiting(failure);
      await sleep(waitMs);
    }
  }
}
