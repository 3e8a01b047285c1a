import { StorageUnavailableError } from '../common/errors.ts';
import type { Logger } from '../common/logger.ts';
import { PROBE_PREFIX } from '../common/object-store.ts';
import type { ObjectStore } from '../common/object-store.ts';

/**
 * Makes the look at a bucket: that it can be written and honours conditional writes. Once that is shown, later looks write
 * nothing: an idle pod looks every minute, and a bucket may keep every version of what was ever written.
 *
 * @returns a function that throws what `ObjectStore.probe` and `ObjectStore.list` throw
 */
export function storeCheck(store: Pick<ObjectStore, 'probe' | 'list'>, bucket: string): () => Promise<void> {
  let isProven = false;
  return async () => {
    if (isProven) await store.list(bucket, PROBE_PREFIX);
    else await store.probe(bucket);
    isProven = true;
  };
}

/**
 * Looks at the bucket when a worker starts. A store that is down is no fault of the configuration: jobs wait for it.
 *
 * @param check - see {@link storeCheck}
 * @throws what the check throws when the store answers and something is wrong
 */
export async function checkStoreAtStart(check: () => Promise<void>, logger: Logger): Promise<void> {
  try {
    await check();
  } catch (error) {
    if (!(error instanceof StorageUnavailableError)) throw error;
    logger.warn({ err: error }, 'the store can not be reached now; jobs will wait for it');
  }
}
