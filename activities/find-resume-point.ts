import { Context } from '@temporalio/activity';
import { MAX_MANIFEST_BYTES, checkpointRef, manifestPrefix, parseManifest } from '../common/checkpoint-manifest.ts';
import type { CheckpointManifest } from '../common/checkpoint-manifest.ts';
import { ChecksumMismatchError, InvalidRequestError } from '../common/errors.ts';
import type { FindResumePointInput, FindResumePointResult } from '../common/activity-types.ts';
import type { ControlDependencies } from './dependencies.ts';

/**
 * Looks for the newest checkpoint of a job whose manifest is whole and whose data is there. The data itself is verified
 * by the pod that downloads it.
 */
export async function findResumePoint(
  input: FindResumePointInput,
  { store, bucket }: ControlDependencies,
): Promise<FindResumePointResult> {
  const signal = Context.current().cancellationSignal;
  const keys = await store.list(bucket, manifestPrefix(input), { signal });
  const valid: CheckpointManifest[] = [];
  for (const key of keys.reverse()) {
    if (input.excludedManifestKeys.includes(key)) continue;
    const manifest = await readManifest(key);
    if (manifest !== null) valid.push(manifest);
  }
  const [newest] = valid;
  return {
    checkpoint: newest === undefined ? null : checkpointRef(newest),
    checkpoints: valid.map(checkpointRef),
    epochLosses: newest?.epochLosses ?? [],
  };

  async function readManifest(key: string): Promise<CheckpointManifest | null> {
    try {
      const bytes = await store.getBytes({ bucket, key }, { maxBytes: MAX_MANIFEST_BYTES, signal });
      if (bytes === null) return null;
      const manifest = parseManifest(bytes, key, input);
      for (const object of manifest.objects) {
        const found = await store.head({ bucket, key: object.key }, { signal });
        if (found?.sizeBytes === object.sizeBytes) continue;
        throw new ChecksumMismatchError(`The data of ${key} is ${found === null ? 'gone' : 'cut short'}.`);
      }
      return manifest;
    } catch (error) {
      // Longer than any manifest (InvalidRequestError) or not one: an older checkpoint is used.
      if (!(error instanceof ChecksumMismatchError || error instanceof InvalidRequestError)) throw error;
      Context.current().log.warn('Checkpoint is damaged and left out', { manifestKey: key, reason: error.message });
      return null;
    }
  }
}
