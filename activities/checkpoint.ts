import { Context } from '@temporalio/activity';
import { randomUUID } from 'node:crypto';
import { readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import {
  MANIFEST_SCHEMA,
  checkpointDataKey,
  checkpointRef,
  manifestKey,
  previewKey,
  serializeManifest,
} from '../common/checkpoint-manifest.ts';
import type { CheckpointManifest } from '../common/checkpoint-manifest.ts';
import { CheckpointIncompatibleError } from '../common/errors.ts';
import { faultPoint } from '../common/fault-point.ts';
import { reasonOf } from '../common/logger.ts';
import type { CheckpointInput, CheckpointResult } from '../common/activity-types.ts';
import type { ManifestObject } from '../common/types.ts';
import { cleanUp } from './clean-up.ts';
import type { PodDependencies } from './dependencies.ts';
import { withHeartbeats } from './heartbeats.ts';
import type { HeldPodScope } from './on-held-pod.ts';
import { pruneCheckpoints } from './prune-checkpoints.ts';
import { readCommitted } from './read-committed.ts';

/**
 * Commits a checkpoint: first its data under a name of its own, then the manifest, which only the first writer gets in.
 * Older checkpoints are deleted afterwards.
 *
 * @throws CheckpointIncompatibleError when another run has committed this epoch
 */
export async function checkpoint(
  input: CheckpointInput,
  scope: HeldPodScope,
  deps: PodDependencies,
): Promise<CheckpointResult> {
  return withHeartbeats(deps.timing.beatMs, async () => {
    const startedAtMs = performance.now();
    const { store, bucket } = deps;
    const { signal, checkFence: checkBeforeTry } = scope;
    const { epoch, checkpointFile, holdId } = input;
    const unique = `${holdId}-${randomUUID()}`;
    const dataKey = checkpointDataKey(input, epoch, unique);
    await faultPoint('checkpoint:begin', input.taskId);
    const to = { bucket, key: dataKey };
    const { sizeBytes, sha256 } = await store.uploadFile(checkpointFile, to, { signal, checkBeforeTry });
    const preview = await uploadPreview(input, unique, scope, deps);
    const manifest: CheckpointManifest = {
      schema: MANIFEST_SCHEMA,
      styleId: input.styleId,
      taskId: input.taskId,
      epoch,
      step: input.step,
      fingerprint: input.fingerprint,
      baseModel: (await deps.baseModel()).fingerprint,
      objects: [{ key: dataKey, sizeBytes, sha256 }],
      ...(preview !== null && { preview }),
      epochLosses: input.epochLosses,
      ...(input.validationLosses && { validationLosses: input.validationLosses }),
      holdId,
      versions: { brushwork: deps.version, torch: (await deps.runtime()).torch },
      createdAt: new Date().toISOString(),
    };
    await faultPoint('checkpoint:data', input.taskId);
    await commit(manifest, input.replaceDamaged, scope, deps);
    await faultPoint('checkpoint:manifest', input.taskId);
    scope.checkFence();
    const older = { ...input, newestEpoch: epoch, count: deps.keepCheckpoints };
    await cleanUp('older checkpoints', () => pruneCheckpoints(older, signal, deps));
    await deleteOlderFiles(checkpointFile);
    await faultPoint('checkpoint:end', input.taskId);
    return { checkpoint: checkpointRef(manifest), sizeBytes, uploadMs: Math.round(performance.now() - startedAtMs) };
  });
}

/** Best effort: null when there is none, or the store does not take it. */
async function uploadPreview(
  input: CheckpointInput,
  unique: string,
  { signal, checkFence: checkBeforeTry }: HeldPodScope,
  { store, bucket }: PodDependencies,
): Promise<ManifestObject | null> {
  const file = input.previewFile ?? null;
  if (file === null) return null;
  const key = previewKey(input, input.epoch, unique);
  try {
    return { key, ...(await store.uploadFile(file, { bucket, key }, { signal, checkBeforeTry })) };
  } catch (error) {
    signal.throwIfAborted();
    Context.current().log.warn('the preview was not uploaded', { reason: reasonOf(error) });
    return null;
  }
}

async function commit(
  manifest: CheckpointManifest,
  replaceDamaged: boolean,
  { signal, checkFence: checkBeforeTry }: HeldPodScope,
  { store, bucket }: PodDependencies,
): Promise<void> {
  const key = manifestKey(manifest, manifest.epoch);
  const body = serializeManifest(manifest);
  const options = { signal, checkBeforeTry };
  if (!replaceDamaged) {
    if ((await store.putIfAbsent({ bucket, key }, body, options)) === 'created') return;
    const present = await readCommitted(key, manifest, { store, bucket }, signal);
    if (present !== null) {
      if (present.fingerprint === manifest.fingerprint) return;
      throw new CheckpointIncompatibleError(
        `Epoch ${manifest.epoch} of task ${manifest.taskId} was committed by a run with other pictures, parameters or ` +
          'another base model. Send the job with a new task_id.',
      );
    }
  }
  // Nothing usable is there, so nothing is lost by writing over it.
  await store.put({ bucket, key }, body, options);
}

/** The newest file stays: it is what a failed next chunk is repeated from. */
async function deleteOlderFiles(newest: string): Promise<void> {
  const directory = path.dirname(newest);
  for (const name of await readdir(directory)) {
    if (name < path.basename(newest)) await rm(path.join(directory, name), { force: true });
  }
}
