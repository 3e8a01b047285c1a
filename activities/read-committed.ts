import { Context } from '@temporalio/activity';
import { MAX_MANIFEST_BYTES, parseManifest } from '../common/checkpoint-manifest.ts';
import type { CheckpointManifest } from '../common/checkpoint-manifest.ts';
import { ChecksumMismatchError, InvalidRequestError } from '../common/errors.ts';
import type { BucketDependencies } from './dependencies.ts';

/** What was read damaged is read once more: the way may have spoilt it. */
const READS = 2;

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
  job: { styleId: number; taskId: string },
  { store, bucket }: Pick<BucketDependencies, 'store' | 'bucket'>,
  signal: AbortSignal,
): Promise<CheckpointManifest | null> {
  for (let reads = 1; ; reads++) {
    try {
      const bytes = await store.getBytes({ bucket, key }, { maxBytes: MAX_MANIFEST_BYTES, signal });
      if (bytes === null) return null;
      const manifest = parseManifest(bytes, key, job);
      for (const object of manifest.objects) {
        const found = await store.head({ bucket, key: object.key }, { signal });
        if (found?.sizeBytes === object.sizeBytes) continue;
        throw new ChecksumMismatchError(`The data of ${key} is ${found === null ? 'gone' : 'cut short'}.`);
      }
      return manifest;
    } catch (error) {
      // Longer than any manifest (InvalidRequestError) or not one.
      if (!(error instanceof ChecksumMismatchError || error instanceof InvalidRequestError)) throw error;
      if (reads < READS) continue;
      Context.current().log.warn('Checkpoint is damaged and left out', { manifestKey: key, reason: error.message });
      return null;
    }
  }
}
