import { Context } from '@temporalio/activity';
import { BrushworkError } from '../common/errors.ts';
import { reasonOf } from '../common/logger.ts';

/**
 * Deletes what is not needed any more. What matters has been written by then, so a store that refuses is only logged.
 *
 * @param what - is deleted, in words
 * @param work - deletes it
 * @param isLastTry - whether the work that this ends is not tried again for its sake; default: true
 * @throws what may pass, before the last try
 */
export async function cleanUp(what: string, work: () => Promise<void>, isLastTry = true): Promise<void> {
  const { log } = Context.current();
  try {
    await work();
  } catch (error) {
    if (!isLastTry && error instanceof BrushworkError && error.retryable) throw error;
    log.warn(`not deleted: ${what}`, { reason: reasonOf(error) });
  }
}
