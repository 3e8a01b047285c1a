import type {
  CheckpointInput,
  CheckpointResult,
  DownloadInput,
  DownloadResult,
  FindResumePointInput,
  FindResumePointResult,
  HoldPodInput,
  InspectPicturesInput,
  InspectPicturesResult,
  NotifyInput,
  PromoteInput,
  PromoteResult,
  TrainEpochChunkInput,
  TrainEpochChunkResult,
  UploadInput,
  UploadResult,
} from '../common/activity-types.ts';
import { checkpoint } from './checkpoint.ts';
import type { ControlDependencies, PicturesDependencies, PodDependencies } from './dependencies.ts';
import { download } from './download.ts';
import { findResumePoint } from './find-resume-point.ts';
import { beating } from './heartbeats.ts';
import { holdPod } from './hold-pod.ts';
import { inItsTime } from './in-its-time.ts';
import { inspectPictures } from './inspect-pictures.ts';
import { notify } from './notify.ts';
import { onHeldPod } from './on-held-pod.ts';
import type { PodWorkInput, HeldPodScope } from './on-held-pod.ts';
import { PreviewPainter } from './preview-painter.ts';
import { ProgressPace } from './progress-pace.ts';
import { promote } from './promote.ts';
import { atTheEdge } from './to-application-failure.ts';
import { trainEpochChunk } from './train-epoch-chunk.ts';
import { upload } from './upload.ts';

/** Activities that run where the GPU is. */
export interface PodActivities {
  holdPod: (input: HoldPodInput) => Promise<void>;
  download: (input: DownloadInput) => Promise<DownloadResult>;
  trainEpochChunk: (input: TrainEpochChunkInput) => Promise<TrainEpochChunkResult>;
  checkpoint: (input: CheckpointInput) => Promise<CheckpointResult>;
  upload: (input: UploadInput) => Promise<UploadResult>;
}

/** Activities that run beside the workflow. */
export interface ControlActivities {
  findResumePoint: (input: FindResumePointInput) => Promise<FindResumePointResult>;
  promote: (input: PromoteInput) => Promise<PromoteResult>;
  notify: (input: NotifyInput) => Promise<void>;
}

/** Activities that look at pictures before a pod is taken. */
export interface PicturesActivities {
  inspectPictures: (input: InspectPicturesInput) => Promise<InspectPicturesResult>;
}

/**
 * The activities of one pod.
 *
 * @param deps - everything that they touch
 */
export function createPodActivities(deps: PodDependencies): PodActivities {
  const { fence, rest } = deps;
  const pace = new ProgressPace(deps.progressIntervalMs);
  const painter = new PreviewPainter(deps);
  const onPod = <Input extends PodWorkInput, Result>(work: (input: Input, scope: HeldPodScope) => Promise<Result>) => {
    const held = onHeldPod(fence, work);
    return atTheEdge((input: Input) =>
      held(input).catch((error: unknown) => {
        rest.failed(error);
        throw error;
      }),
    );
  };
  return {
    holdPod: atTheEdge((input: HoldPodInput) => holdPod(input, deps)),
    download: onPod((input: DownloadInput, scope) => download(input, scope, deps)),
    trainEpochChunk: onPod(async (input: TrainEpochChunkInput, scope) => {
      const trained = await trainEpochChunk(input, scope, deps, pace, painter);
      rest.worked();
      return trained;
    }),
    checkpoint: onPod((input: CheckpointInput, scope) => checkpoint(input, scope, deps)),
    upload: onPod((input: UploadInput, scope) => upload(input, scope, deps)),
  };
}

/**
 * The activities of the control queue.
 *
 * @param deps - everything that they touch
 */
export function createControlActivities(deps: ControlDependencies): ControlActivities {
  const onStore = <Input, Result>(work: (input: Input, signal: AbortSignal) => Promise<Result>) =>
    atTheEdge(beating(inItsTime(work)));
  return {
    findResumePoint: onStore((input: FindResumePointInput, signal) => findResumePoint(input, signal, deps)),
    promote: onStore((input: PromoteInput, signal) => promote(input, signal, deps)),
    notify: atTheEdge((input: NotifyInput) => notify(input, deps)),
  };
}

/**
 * The activities of the queue of pictures.
 *
 * @param deps - everything that they touch
 */
export function createPicturesActivities(deps: PicturesDependencies): PicturesActivities {
  return { inspectPictures: atTheEdge(beating((input: InspectPicturesInput) => inspectPictures(input, deps))) };
}
