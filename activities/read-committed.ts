import { Context } from '@temporalio/activity';
import { MAX_MANIFEST_BYTES, parseManifest } from '../common/checkpoint-manifest.ts';
import type { CheckpointManifest, JobKeys } from '../common/checkpoint-manifest.ts';
import { ChecksumMismatchError, InvalidRequestError } from '../common/errors.ts';
import type { BucketDependencies } from './dependencies.ts';

/** What was read damaged is read once more: the way may have spoilt it. */
const READS = 2;

/** Reads a manifest; null: there is none. Damaged or too long, it is a ChecksumMismatchError. */
export async function readManifest(
  key: string,
  job: JobKeys,
  { store, bucket }: Pick<BucketDependencies, 'store' | 'bucket'>,
  signal: AbortSignal,
): Promise<CheckpointManifest | null> {
  for (let read = 1; ; read++) {
    try {
      const bytes = await store.getBytes({ bucket, key }, { maxBytes: MAX_MANIFEST_BYTES, signal });
      return bytes === null ? null : parseManifest(bytes, key, job);
    } catch (error) {
      const isTooLong = error instanceof InvalidRequestError;
      if (!isTooLong && !(error instanceof ChecksumMismatchError)) throw error;
      if (read < READS) continue;
      throw isTooLong ? new ChecksumMismatchError(`${key} is longer than any manifest.`, { cause: error }) : error;
    }
  }
}

/**
 * Reads a manifest, and makes sure that the data which it names is there. The data itself is verified by the pod that
 * downloads it.
 *
 * @param key - of the manifest
 * @param job - whose it must be
 * @returns null where there is none, or a damaged one
 */
export async function readCommitted(
  key: string,
  job: JobKeys,
  deps: Pick<BucketDependencies, 'store' | 'bucket'>,
  signal: AbortSignal,
): Promise<CheckpointManifest | null> {
  try {
    const manifest = await readManifest(key, job, deps, signal);
    for (const object of manifest?.objects ?? []) {
      const found = await deps.store.head({ bucket: deps.bucket, key: object.key }, { signal });
      if (found?.sizeBytes === object.sizeBytes) continue;
      throw new ChecksumMismatchError(`The data of ${key} is ${found === null ? 'gone' : 'cut short'}.`);
    }
    return manifest;
  } catch (error) {
    if (!(error instanceof ChecksumMismatchError)) throw error;
    Context.current().log.warn('Checkpoint is damaged and left out', { manifestKey: key, reason: error.message });
    return null;
  }
}
