import { checkpointPrefix, epochOfKey } from '../common/checkpoint-manifest.ts';
import type { BucketDependencies } from './dependencies.ts';

/** Which checkpoints of a job stay. */
export interface KeptCheckpoints {
  styleId: number;
  taskId: string;
  /** Later ones are of another attempt and stay as well. */
  newestEpoch: number;
  /** How many up to `newestEpoch`; 0: none. */
  count: number;
}

/**
 * Deletes a job's older checkpoints.
 *
 * @param kept - which ones stay
 * @param signal - ends it
 */
export async function pruneCheckpoints(
  kept: KeptCheckpoints,
  signal: AbortSignal,
  { store, bucket }: Pick<BucketDependencies, 'store' | 'bucket'>,
): Promise<void> {
  const keys = await store.list(bucket, checkpointPrefix(kept), { signal });
  const committed = keys.filter((key) => key.includes('/manifests/')).flatMap((key) => epochOfKey(key) ?? []);
  const newestFirst = committed.filter((epoch) => epoch <= kept.newestEpoch).sort((a, b) => b - a);
  const oldestKept = kept.count === 0 ? Infinity : newestFirst[kept.count - 1];
  if (oldestKept === undefined) return;
  const old = keys.filter((key) => (epochOfKey(key) ?? oldestKept) < oldestKept);
  // Manifests first: one without data would be found and found wanting.
  for (const part of ['/manifests/', '/data/']) {
    const some = old.filter((key) => key.includes(part));
    if (some.length > 0) await store.deleteAll(bucket, some, { signal });
  }
}
