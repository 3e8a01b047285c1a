import { Context } from '@temporalio/activity';
import { checkpointPrefix, epochOfKey } from '../common/checkpoint-manifest.ts';
import { InternalError, StorageUnavailableError } from '../common/errors.ts';
import type { PromoteInput, PromoteResult } from '../common/activity-types.ts';
import type { ManifestObject } from '../common/types.ts';
import type { ControlDependencies } from './dependencies.ts';
import { WEIGHTS_FILE, jobStagingPrefix, modelPrefix } from './weight-keys.ts';

/**
 * Puts staged weights in their final place, inside the store, and clears away what training left behind: the staging
 * area and all checkpoints but the final one. May be repeated.
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
  // The weights come last: whoever waits for them finds the rest in place.
  const ordered = [...input.objects].sort(
    (a, b) => Number(targetKey(a) === weightsKey) - Number(targetKey(b) === weightsKey),
  );
  for (const object of ordered) {
    const to = { bucket, key: targetKey(object) };
    // An earlier attempt may have come as far as deleting the source: then the target must be whole.
    const copied =
      (await store.copy({ bucket, key: object.key }, to, { signal })) ?? (await store.head(to, { signal }));
    if (copied?.sizeBytes === object.sizeBytes) continue;
    throw new StorageUnavailableError(`${to.key} is not whole after copying it from ${object.key}.`);
  }
  await store.deleteAll(bucket, await store.list(bucket, jobStagingPrefix(input), { signal }), { signal });
  await deleteAllButFinal(input, deps, signal);
  return { modelUri: `${uriScheme}://${bucket}/${weightsKey}` };
}

async function deleteAllButFinal(
  input: PromoteInput,
  { store, bucket }: ControlDependencies,
  signal: AbortSignal,
): Promise<void> {
  const keys = await store.list(bucket, checkpointPrefix(input), { signal });
  const finalEpoch = Math.max(...keys.filter((key) => key.includes('/manifests/')).map((key) => epochOfKey(key) ?? 0));
  const old = keys.filter((key) => (epochOfKey(key) ?? finalEpoch) < finalEpoch);
  if (old.length > 0) await store.deleteAll(bucket, old, { signal });
}
