import { Context } from '@temporalio/activity';
import { createHash } from 'node:crypto';
import { keptPicturesPrefix } from '../common/checkpoint-manifest.ts';
import { InternalError, StorageUnavailableError } from '../common/errors.ts';
import { faultPoint } from '../common/fault-point.ts';
import type { PromoteInput, PromoteResult } from '../common/activity-types.ts';
import type { ManifestObject } from '../common/types.ts';
import { cleanUp } from './clean-up.ts';
import type { ControlDependencies } from './dependencies.ts';
import { pruneCheckpoints } from './prune-checkpoints.ts';
import { WEIGHTS_FILE, jobStagingPrefix, modelPrefix, optionalModelPrefix } from './weight-keys.ts';

/** About four minutes: the weights are in place, and the backend waits to hear of them. */
const CLEAN_UP_TRIES = 8;

/**
 * Puts staged weights in their final place, inside the store, and clears away what training left behind: the staging
 * area and the checkpoints that are not kept. May be repeated.
 */
export async function promote(input: PromoteInput, deps: ControlDependencies): Promise<PromoteResult> {
  const { store, bucket, uriScheme } = deps;
  const signal = Context.current().cancellationSignal;
  const targetKey = (object: ManifestObject) =>
    `${modelPrefix(input.styleId)}${object.key.slice(input.stagingPrefix.length)}`;
  const weightsKey = `${modelPrefix(input.styleId)}${WEIGHTS_FILE}`;
  if (!input.objects.some((object) => targetKey(object) === weightsKey)) {
    throw new InternalError(`The trainer exported no ${WEIGHTS_FILE}. Please report this.`);
  }
  await faultPoint('promote:begin', input.taskId);
  // The weights come last: whoever waits for them finds the rest in place.
  const ordered = [...input.objects].sort(
    (a, b) => Number(targetKey(a) === weightsKey) - Number(targetKey(b) === weightsKey),
  );
  for (const object of ordered) {
    const to = { bucket, key: targetKey(object) };
    // An earlier attempt may have come as far as deleting the source: then the target must be whole.
    const copied = await store.copy({ bucket, key: object.key }, to, { signal });
    if (copied === null ? await isThere(object, to.key, signal, deps) : copied.sizeBytes === object.sizeBytes) continue;
    throw new StorageUnavailableError(`${to.key} is not whole after copying it from ${object.key}.`);
  }
  await faultPoint('promote:copied', input.taskId);
  const optional = optionalModelPrefix(input.styleId);
  const staging = jobStagingPrefix(input);
  // A job of an earlier version counts no tries: Temporal does.
  const isLastTry = (input.tryCount ?? Context.current().info.attempt) >= CLEAN_UP_TRIES;
  const older = { ...input, newestEpoch: Infinity, count: deps.keepFinalCheckpoints };
  await cleanUp(optional, () => clear(optional, new Set(ordered.map(targetKey)), signal, deps), isLastTry);
  await cleanUp(staging, () => clear(staging, new Set(), signal, deps), isLastTry);
  const pictures = keptPicturesPrefix(input);
  if (older.count === 0) await cleanUp(pictures, () => clear(pictures, new Set(), signal, deps), isLastTry);
  await cleanUp('older checkpoints', () => pruneCheckpoints(older, signal, deps), isLastTry);
  await faultPoint('promote:end', input.taskId);
  return { modelUri: `${uriScheme}://${bucket}/${weightsKey}` };
}

/** Compares contents: weights of another training of the same style are of the same size. */
async function isThere(
  { sizeBytes, sha256 }: ManifestObject,
  key: string,
  signal: AbortSignal,
  { store, bucket }: ControlDependencies,
): Promise<boolean> {
  const found = await store.head({ bucket, key }, { signal });
  if (found?.sizeBytes !== sizeBytes) return false;
  const bytes = await store.getBytes({ bucket, key }, { maxBytes: sizeBytes, signal });
  return bytes !== null && createHash('sha256').update(bytes).digest('hex') === sha256;
}

/** Deletes all but `kept`. */
async function clear(
  prefix: string,
  kept: ReadonlySet<string>,
  signal: AbortSignal,
  { store, bucket }: ControlDependencies,
): Promise<void> {
  const keys = await store.list(bucket, prefix, { signal });
  await store.deleteAll(
    bucket,
    keys.filter((key) => !kept.has(key)),
    { signal },
  );
}
