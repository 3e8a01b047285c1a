import { StorageUnavailableError } from '../common/errors.ts';
import type { Logger } from '../common/logger.ts';
import type { ObjectStore } from '../common/object-store.ts';

/**
 * Start-up check: the bucket can be written and honours conditional writes. A store that is down is no fault of the
 * configuration: jobs wait for it.
 *
 * @throws what `ObjectStore.probe` throws when the store answers and something is wrong
 */
export async function checkStore(store: ObjectStore, bucket: string, logger: Logger): Promise<void> {
  try {
    await store.probe(bucket);
  } catch (error) {
    if (!(error instanceof StorageUnavailableError)) throw error;
    logger.warn({ err: error, bucket }, 'the store can not be reached now; jobs will wait for it');
  }
}
