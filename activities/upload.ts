import { randomUUID } from 'node:crypto';
import { mkdir, readdir, rm } from 'node:fs/promises';
import path from 'node:path';
import type { UploadInput, UploadResult } from '../common/activity-types.ts';
import { faultPoint } from '../common/fault-point.ts';
import type { ManifestObject } from '../common/types.ts';
import type { PodDependencies } from './dependencies.ts';
import { withHeartbeats } from './heartbeats.ts';
import { exportDirectory } from './job-files.ts';
import type { HeldPodScope } from './on-held-pod.ts';
import { StallWatch } from './stall-watch.ts';
import { standAt } from './trainer-job.ts';
import { stagingPrefix } from './weight-keys.ts';

/** Exports the finished weights in all formats and uploads them below a prefix that no other attempt uses. */
export async function upload(
  input: UploadInput,
  { signal, checkFence: checkBeforeTry }: HeldPodScope,
  deps: PodDependencies,
): Promise<UploadResult> {
  return withHeartbeats(deps.timing.beatMs, async () => {
    const directory = exportDirectory(input.jobDirectory);
    await faultPoint('upload:begin', input.taskId);
    await rm(directory, { recursive: true, force: true });
    await mkdir(directory, { recursive: true });
    await exportWeights(directory, input, signal, deps);
    await faultPoint('upload:exported', input.taskId);
    const prefix = stagingPrefix(input, randomUUID());
    const objects: ManifestObject[] = [];
    for (const file of await filesBelow(directory)) {
      const key = `${prefix}${file.split(path.sep).join('/')}`;
      const to = { bucket: deps.bucket, key };
      const written = await deps.store.uploadFile(path.join(directory, file), to, { signal, checkBeforeTry });
      objects.push({ key, ...written });
    }
    await faultPoint('upload:end', input.taskId);
    return { stagingPrefix: prefix, objects };
  });
}

/** The trainer's part, which must not take for ever: a trainer that hangs, or is called off, is ended. */
async function exportWeights(
  directory: string,
  input: UploadInput,
  signal: AbortSignal,
  deps: PodDependencies,
): Promise<void> {
  const { trainer, timing } = deps;
  const watch = new StallWatch({ loadStallMs: timing.loadStallMs, stallMs: timing.loadStallMs });
  const over = AbortSignal.any([signal, watch.signal]);
  const endTrainer = () => void trainer.kill();
  over.addEventListener('abort', endTrainer);
  try {
    await standAt({ ...input, steps: input.totalSteps }, over, deps);
    watch.moved(timing.loadStallMs);
    await trainer.exportWeights(directory);
    over.throwIfAborted();
  } catch (error) {
    throw over.aborted ? over.reason : error;
  } finally {
    over.removeEventListener('abort', endTrainer);
    watch.stop();
  }
}

async function filesBelow(directory: string): Promise<string[]> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(directory, path.join(entry.parentPath, entry.name)))
    .sort();
}
