import { checkpointRef, manifestPrefix } from '../common/checkpoint-manifest.ts';
import type { CheckpointManifest } from '../common/checkpoint-manifest.ts';
import { CheckpointIncompatibleError } from '../common/errors.ts';
import { faultPoint } from '../common/fault-point.ts';
import type { FindResumePointInput, FindResumePointResult } from '../common/activity-types.ts';
import type { ControlDependencies } from './dependencies.ts';
import { readCommitted } from './read-committed.ts';

/**
 * Looks for the newest checkpoint of a job whose manifest is whole and whose data is there. The data itself is verified
 * by the pod that downloads it.
 */
export async function findResumePoint(
  input: FindResumePointInput,
  signal: AbortSignal,
  deps: ControlDependencies,
): Promise<FindResumePointResult> {
  await faultPoint('resume:begin', input.taskId);
  const keys = await deps.store.list(deps.bucket, manifestPrefix(input), { signal });
  const valid: CheckpointManifest[] = [];
  for (const key of keys.reverse()) {
    if (input.excludedManifestKeys.includes(key)) continue;
    try {
      const manifest = await readCommitted(key, input, deps, signal);
      if (manifest !== null) valid.push(manifest);
    } catch (error) {
      // What an earlier version has left does not matter once there is a newer one that can be read.
      if (valid.length === 0 || !(error instanceof CheckpointIncompatibleError)) throw error;
    }
  }
  await faultPoint('resume:end', input.taskId);
  const [newest] = valid;
  return {
    checkpoint: newest === undefined ? null : checkpointRef(newest),
    checkpoints: valid.map(checkpointRef),
    epochLosses: newest?.epochLosses ?? [],
    ...(newest?.validationLosses && { validationLosses: newest.validationLosses }),
  };
}
