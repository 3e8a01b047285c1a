import { Context } from '@temporalio/activity';
import { createHash } from 'node:crypto';
import { keptPicturesPrefix } from '../common/checkpoint-manifest.ts';
import { CancelledError, InternalError, StorageUnavailableError } from '../common/errors.ts';
import { faultPoint } from '../common/fault-point.ts';
import type { PromoteInput, PromoteResult } from '../common/activity-types.ts';
import type { ManifestObject } from '../common/types.ts';
import { cleanUp } from './clean-up.ts';
import type { ControlDependencies } from './dependencies.ts';
import { heartbeatDirectly } from './direct-heartbeat.ts';
import { pruneCheckpoints } from './prune-checkpoints.ts';
import { WEIGHTS_FILE, jobStagingPrefix, modelPrefix, optionalModelPrefix } from './weight-keys.ts';

const ASK_LIMIT_MS = 5_000;
/** About four minutes, for what is better given up than waited for. */
const PATIENT_TRIES = 8;

/**
 * Puts staged weights in their final place, inside the store, and clears away what training left behind: the staging
 * area and the checkpoints that are not kept. May be repeated.
 */
export async function promote(
  input: PromoteInput,
  signal: AbortSignal,
  deps: ControlDependencies,
): Promise<PromoteResult> {
  const { store, bucket, uriScheme } = deps;
  const targetKey = (object: ManifestObject) =>
    `${modelPrefix(input.styleId)}${object.key.slice(input.stagingPrefix.length)}`;
  const weightsKey = `${modelPrefix(input.styleId)}${WEIGHTS_FILE}`;
  if (!input.objects.some((object) => targetKey(object) === weightsKey)) {
    throw new InternalError(`The trainer exported no ${WEIGHTS_FILE}. Please report this.`, { retryable: false });
  }
  // A job of an earlier version counts no tries: Temporal does.
  const isLastTry = (input.tryCount ?? Context.current().info.attempt) >= PATIENT_TRIES;
  await faultPoint('promote:begin', input.taskId);
  // The weights come last: whoever waits for them finds the rest in place.
  const ordered = [...input.objects].sort(
    (a, b) => Number(targetKey(a) === weightsKey) - Number(targetKey(b) === weightsKey),
  );
  for (const object of ordered) {
    const to = { bucket, key: targetKey(object) };
    await checkIsOurs();
    const copied = await store.copy({ bucket, key: object.key }, to, { signal });
    if (copied?.sizeBytes === object.sizeBytes) continue;
    // An earlier attempt may have come as far as deleting the source: then the target must be whole.
    if (copied === null && (await holdsContent(object, to.key, signal, deps))) continue;
    if (copied === null && isLastTry) throw stagedWeightsGone(object);
    throw new StorageUnavailableError(`${to.key} is not whole after copying it from ${object.key}.`);
  }
  await faultPoint('promote:copied', input.taskId);
  const optional = optionalModelPrefix(input.styleId);
  const staging = jobStagingPrefix(input);
  await checkIsOurs();
  // The weights are in place, and the backend waits to hear of them: on the last try nothing holds that up any more.
  const older = { ...input, newestEpoch: Infinity, count: deps.keepFinalCheckpoints };
  await cleanUp(optional, () => clear(optional, new Set(ordered.map(targetKey)), signal, deps), isLastTry);
  await cleanUp(staging, () => clear(staging, new Set(), signal, deps), isLastTry);
  const pictures = keptPicturesPrefix(input);
  if (older.count === 0) await cleanUp(pictures, () => clear(pictures, new Set(), signal, deps), isLastTry);
  await cleanUp('older checkpoints', () => pruneCheckpoints(older, signal, deps), isLastTry);
  await faultPoint('promote:end', input.taskId);
  return { modelUri: `${uriScheme}://${bucket}/${weightsKey}` };
}

/**
 * A worker that stood still may have been given up: what it copied or deleted now could be another job's.
 *
 * @throws CancelledError when another attempt has taken over or the run has ended, InternalError when Temporal does not answer
 */
async function checkIsOurs(): Promise<void> {
  const standing = await heartbeatDirectly(ASK_LIMIT_MS).catch((cause: unknown) => {
    throw new InternalError('Temporal does not answer, so the weights wait in the staging area.', { cause });
  });
  if (standing === 'unknown') throw new CancelledError('Another control worker has taken over.');
}

function stagedWeightsGone({ key }: ManifestObject): InternalError {
  return new InternalError(
    `The staged weights are gone (${key}), and in their place are those of another training, or none. Reset the job to ` +
      'its first workflow task: it goes on from its last checkpoint.',
    { retryable: false },
  );
}

/** Compares contents: weights of another training of the same style are of the same size. */
async function holdsContent(
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
