import { Context } from '@temporalio/activity';
import { StorageUnavailableError } from '../common/errors.ts';

/** Of the time that an attempt has. The rest is for saying what was not done. */
const SHARE = 0.8;
/** Timers take no more. */
const LONGEST_MS = 2 ** 31 - 1;

/**
 * Wraps an activity that asks the store: it gives up shortly before its time is over. Temporal's own time-out would name
 * no reason, and would be repeated by Temporal alone, without the job or an operator ever hearing of it.
 *
 * @param activity - the work; its signal aborts when the activity is cancelled, and with a StorageUnavailableError when
 *   its time is nearly over
 */
export function inItsTime<Input, Result>(
  activity: (input: Input, signal: AbortSignal) => Promise<Result>,
): (input: Input) => Promise<Result> {
  return async (input) => {
    const { cancellationSignal, info } = Context.current();
    const limitMs = Math.min(info.startToCloseTimeoutMs * SHARE, LONGEST_MS);
    const late = new AbortController();
    const timer = setTimeout(() => {
      late.abort(new StorageUnavailableError(`The store did not answer within ${limitMs / 1000} s: look after it.`));
    }, limitMs);
    try {
      return await activity(input, AbortSignal.any([cancellationSignal, late.signal]));
    } finally {
      clearTimeout(timer);
    }
  };
}
