import { Context } from '@temporalio/activity';
import { mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import type { CheckpointManifest } from '../common/checkpoint-manifest.ts';
import { CheckpointIncompatibleError, ChecksumMismatchError } from '../common/errors.ts';
import { faultPoint } from '../common/fault-point.ts';
import { checkResolution, picturesPerEpoch, trainingConfigFor } from '../common/training-config.ts';
import type { DownloadInput, DownloadResult } from '../common/activity-types.ts';
import type { CheckpointRef } from '../common/types.ts';
import { doubtsForHistory, logReport } from './data-report-lines.ts';
import { stepsPerEpoch } from '../native/trainer/aspect-buckets.ts';
import { trainedSizes } from '../native/trainer/data-report.ts';
import { holdOut } from '../native/trainer/held-out-pictures.ts';
import type { BaseModel, PodDependencies } from './dependencies.ts';
import { fetchPictures } from './fetch-pictures.ts';
import { runFingerprint } from './fingerprint.ts';
import { withHeartbeats } from './heartbeats.ts';
import { checkpointFile, imageDirectory } from './job-files.ts';
import { KeptPictures } from './kept-pictures.ts';
import type { HeldPodScope } from './on-held-pod.ts';
import { readManifest } from './read-committed.ts';

/** A damaged read may be the network's fault: the store is asked once more before the checkpoint counts as damaged. */
const CHECKPOINT_READS = 2;
const MAX_CHECKPOINT_BYTES = 4 * 2 ** 30;

/**
 * Brings pictures, captions and the checkpoint to resume from onto the pod's disk, verified.
 *
 * @throws ChecksumMismatchError when the checkpoint is damaged, CheckpointIncompatibleError when it belongs to another
 *   configuration, data set or base model; for pictures see `fetchPictures`
 */
export async function download(
  input: DownloadInput,
  { signal }: HeldPodScope,
  deps: PodDependencies,
): Promise<DownloadResult> {
  return withHeartbeats(deps.timing.beatMs, async () => {
    const jobDirectory = deps.jobDirectory(input.holdId);
    const directory = imageDirectory(jobDirectory);
    await faultPoint('download:begin', input.taskId);
    await rm(directory, { recursive: true, force: true });
    await mkdir(directory, { recursive: true });
    const baseModel = await deps.baseModel();
    const { mixedPrecisionDefault } = await deps.runtime();
    const total = input.images.length;
    let done = 0;
    // Every picture is needed, so their number is known before they are here.
    const config = trainingConfigFor(input.parameters, deps.recipe, { imageCount: total, mixedPrecisionDefault });
    checkResolution(config, baseModel);
    const { resolutionPx, resizeMode, triggerWord } = config;
    const { pictures, report, fault } = await fetchPictures(input.images, {
      store: deps.store,
      kept: new KeptPictures(input, deps),
      rules: deps.imageRules,
      directory,
      fallbackCaption: input.tags.length > 0 ? input.tags.join(', ') : deps.instancePrompt,
      hashes: input.pictureHashes ?? null,
      plan: { resolutionPx, resizeMode, triggerWord },
      signal,
      onPicture: () => {
        done += 1;
        Context.current().heartbeat({ pictures: done, total });
      },
    });
    if (fault !== null) throw fault;
    await faultPoint('download:pictures', input.taskId);
    logReport(report);
    const { heldOut } = holdOut(report.pictures, config);
    if (heldOut.length > 0) {
      Context.current().log.info('held out of training', { pictures: heldOut.map(({ name }) => name) });
    }
    const fingerprint = runFingerprint({ config, baseModelFingerprint: baseModel.fingerprint, pictures });
    const { resumeFrom } = input;
    return {
      jobDirectory,
      imageCount: picturesPerEpoch(pictures.length, config),
      stepsPerEpoch: stepsPerEpoch(trainedSizes(report, config), config),
      captionCount: report.pictures.filter(({ captionFrom }) => captionFrom === 'file').length,
      doubts: doubtsForHistory(report, "the pod's log"),
      checkpointFile:
        resumeFrom === null
          ? null
          : await fetchCheckpoint({ ...input, resumeFrom, fingerprint, baseModel, jobDirectory }, signal, deps),
      fingerprint,
      config,
    };
  });
}

interface CheckpointRequest {
  styleId: number;
  taskId: string;
  resumeFrom: CheckpointRef;
  /** Of the run that wants to go on from it. */
  fingerprint: string;
  baseModel: BaseModel;
  jobDirectory: string;
}

async function fetchCheckpoint(
  request: CheckpointRequest,
  signal: AbortSignal,
  { store, bucket }: PodDependencies,
): Promise<string> {
  const { resumeFrom, jobDirectory } = request;
  const { manifestKey } = resumeFrom;
  const manifest = await readManifest(manifestKey, request, { store, bucket }, signal);
  if (manifest === null) throw new ChecksumMismatchError(`The checkpoint manifest ${manifestKey} is gone.`);
  if (manifest.fingerprint !== request.fingerprint) throw otherRun(manifest, request.baseModel);
  const file = checkpointFile(jobDirectory, manifest.epoch);
  await mkdir(path.dirname(file), { recursive: true });
  for (let read = 1; ; read++) {
    try {
      await fetchData(manifest, file, signal, { store, bucket });
      await faultPoint('download:checkpoint', request.taskId);
      return file;
    } catch (error) {
      if (!(error instanceof ChecksumMismatchError) || read === CHECKPOINT_READS) throw error;
    }
  }
}

function otherRun({ epoch, baseModel }: CheckpointManifest, here: BaseModel): CheckpointIncompatibleError {
  const start = 'Send the job with a new task_id to train from the start, or';
  if (baseModel !== undefined && baseModel !== here.fingerprint) {
    return new CheckpointIncompatibleError(
      `The checkpoint of epoch ${epoch} was made on a pod with another base model (${baseModel.slice(0, 12)}) than this ` +
        `pod's ${here.name} (${here.fingerprint.slice(0, 12)}). ${start} give all pods the same: name it by its commit in ` +
        'BASE_MODEL (org/name@<commit>), and reset this one.',
    );
  }
  const models = baseModel === undefined ? 'parameters or another base model' : 'or parameters';
  return new CheckpointIncompatibleError(
    `The checkpoint of epoch ${epoch} was made with other pictures, captions, ${models}. ${start} undo the change and ` +
      'reset this one.',
  );
}

async function fetchData(
  manifest: CheckpointManifest,
  file: string,
  signal: AbortSignal,
  { store, bucket }: Pick<PodDependencies, 'store' | 'bucket'>,
): Promise<void> {
  const [object] = manifest.objects;
  if (object === undefined) throw new ChecksumMismatchError(`The manifest of epoch ${manifest.epoch} names no data.`);
  const fetched = await store.downloadFile({ bucket, key: object.key }, file, {
    maxBytes: MAX_CHECKPOINT_BYTES,
    signal,
  });
  if (fetched?.sizeBytes === object.sizeBytes && fetched.sha256 === object.sha256) return;
  const what = fetched === null ? 'is gone' : 'differs from what was written';
  throw new ChecksumMismatchError(`The checkpoint of epoch ${manifest.epoch} ${what} (${object.key}).`);
}
