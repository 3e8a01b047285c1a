import { Context } from '@temporalio/activity';
import { checkpointRef, manifestPrefix } from '../common/checkpoint-manifest.ts';
import type { CheckpointManifest } from '../common/checkpoint-manifest.ts';
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
  deps: ControlDependencies,
): Promise<FindResumePointResult> {
  const signal = Context.current().cancellationSignal;
  await faultPoint('resume:begin', input.taskId);
  const keys = await deps.store.list(deps.bucket, manifestPrefix(input), { signal });
  const valid: CheckpointManifest[] = [];
  for (const key of keys.reverse()) {
    if (input.excludedManifestKeys.includes(key)) continue;
    const manifest = await readCommitted(key, input, deps, signal);
    if (manifest !== null) valid.push(manifest);
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
