import { Context } from '@temporalio/activity';
import { StorageUnavailableError } from '../common/errors.ts';
import { reasonOf } from '../common/logger.ts';

/**
 * Deletes what is not needed any more. What matters has been written by then, so a store that refuses is only logged.
 *
 * @param what - is deleted, in words
 * @param work - deletes it
 * @param attempts - tries of this activity that a store that can't be reached may cost; default 1: none more
 * @throws StorageUnavailableError before the last of them
 */
export async function cleanUp(what: string, work: () => Promise<void>, attempts = 1): Promise<void> {
  const { info, log } = Context.current();
  try {
    await work();
  } catch (error) {
    if (error instanceof StorageUnavailableError && info.attempt < attempts) throw error;
    log.warn(`not deleted: ${what}`, { reason: reasonOf(error) });
  }
}
