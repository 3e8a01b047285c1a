import { ApplicationFailure, CancelledFailure, Context } from '@temporalio/activity';
import { ApplicationFailureCategory } from '@temporalio/common';
import { WebhookUnavailableError, WorkerShutdownError, toBrushworkError } from '../common/errors.ts';
import type { FailureDetails } from '../common/types.ts';

/**
 * Turns anything thrown inside an activity into what Temporal understands. The only place that does: Temporal knows our
 * classes by `type` alone and would retry every one of them.
 *
 * @param error - what the activity threw
 */
export function toApplicationFailure(error: unknown): ApplicationFailure | CancelledFailure {
  if (error instanceof CancelledFailure || error instanceof ApplicationFailure) return error;
  const ours = toBrushworkError(error);
  const retryAfterMs = ours instanceof WebhookUnavailableError ? ours.retryAfterMs : null;
  // The cause stays in the log of this process: it may hold addresses and answers that don't belong into a history.
  return ApplicationFailure.create({
    message: ours.message,
    type: ours.code,
    nonRetryable: !ours.retryable,
    ...(retryAfterMs !== null && { details: [{ retryAfterMs } satisfies FailureDetails] }),
    ...(ours instanceof WorkerShutdownError && { category: ApplicationFailureCategory.BENIGN }),
  });
}

/**
 * Gives an activity its edge: everything that it throws leaves as {@link toApplicationFailure} says.
 *
 * @param activity - throws our errors
 */
export function atTheEdge<Input, Result>(
  activity: (input: Input) => Promise<Result>,
): (input: Input) => Promise<Result> {
  return async (input) => {
    try {
      return await activity(input);
    } catch (error) {
      const failure = toApplicationFailure(leavingWorker() ?? error);
      const { log } = Context.current();
      if (error instanceof Error && error.cause !== undefined) log.warn(error.message, { cause: error.cause });
      throw failure;
    }
  };
}

/** A worker that is asked to leave makes every call of the activity fail in some way: only the reason counts. */
function leavingWorker(): WorkerShutdownError | null {
  if (Context.current().cancellationDetails?.workerShutdown !== true) return null;
  return new WorkerShutdownError('The pod was asked to leave. The job goes on from its last checkpoint.');
}
