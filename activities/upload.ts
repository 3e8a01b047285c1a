import { randomUUID } from 'node:crypto';
import { mkdir, readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import type { UploadInput, UploadResult } from '../common/activity-types.ts';
import { faultPoint } from '../common/fault-point.ts';
import type { ManifestObject } from '../common/types.ts';
import type { PodDependencies } from './dependencies.ts';
import { exportDirectory } from './job-files.ts';
import { withHeartbeats } from './on-held-pod.ts';
import type { HeldPodScope } from './on-held-pod.ts';
import { standAt } from './trainer-job.ts';
import { stagingPrefix } from './weight-keys.ts';

/** Exports the finished weights in all formats and uploads them below a prefix that no other attempt uses. */
export async function upload(
  input: UploadInput,
  { signal, checkFence }: HeldPodScope,
  deps: PodDependencies,
): Promise<UploadResult> {
  return withHeartbeats(deps.timing.beatMs, async () => {
    const directory = exportDirectory(input.jobDirectory);
    await faultPoint('upload:begin', input.taskId);
    await rm(directory, { recursive: true, force: true });
    await mkdir(directory, { recursive: true });
    await standAt({ ...input, steps: input.totalSteps }, signal, deps);
    await deps.trainer.exportWeights(directory);
    await faultPoint('upload:exported', input.taskId);
    const prefix = stagingPrefix(input, randomUUID());
    const objects: ManifestObject[] = [];
    for (const file of await filesBelow(directory)) {
      const key = `${prefix}${file.split(path.sep).join('/')}`;
      checkFence();
      const written = await deps.store.uploadFile(path.join(directory, file), { bucket: deps.bucket, key }, { signal });
      objects.push({ key, ...written });
    }
    await faultPoint('upload:end', input.taskId);
    return { stagingPrefix: prefix, objects };
  });
}

async function filesBelow(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(directory, path.join(entry.parentPath, entry.name)))
    .sort();
}
