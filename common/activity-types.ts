/** Inputs, results and heartbeats of the activities. As in `types.ts`, everything here ends up in the workflow history. */

import type { CheckpointRef, ManifestObject, RequestedParameters, TrainingConfig, ValidationLoss } from './types.ts';

/** Input of `holdPod`: takes the only slot of a pod for one job. */
export interface HoldPodInput {
  holdId: string;
  styleId: number;
  taskId: string;
}

/** Input of `inspectPictures`: the pictures of a job, before any pod is taken. */
export interface InspectPicturesInput {
  styleId: number;
  taskId: string;
  images: string[];
  tags: string[];
  parameters: RequestedParameters;
}

/** Result of `inspectPictures`. */
export interface InspectPicturesResult {
  /** What the data report finds doubtful. */
  doubts: string[];
  /** URI of the whole report as JSON; a table for people lies beside it. Null where it could not be written. */
  reportUri: string | null;
  /** See `pictureHash`, in the order of the message; absent from a control worker under a version without them. */
  pictureHashes?: string[];
}

/** Input of `findResumePoint`. */
export interface FindResumePointInput {
  styleId: number;
  taskId: string;
  /** Manifests that turned out damaged: look for an older one. */
  excludedManifestKeys: string[];
}

/** Result of `findResumePoint`. */
export interface FindResumePointResult {
  /** Newest valid checkpoint, or null: train from epoch 0. */
  checkpoint: CheckpointRef | null;
  /** All valid checkpoints, newest first (query `checkpoints`). */
  checkpoints: CheckpointRef[];
  /** Mean loss of each epoch up to `checkpoint`, oldest first; empty without one. */
  epochLosses: number[];
  /** What was measured on held-out pictures up to `checkpoint`, oldest first; absent without validation. */
  validationLosses?: ValidationLoss[];
}

/** Input of `download`: pictures, captions and the checkpoint, onto the pod that is held. */
export interface DownloadInput {
  styleId: number;
  taskId: string;
  holdId: string;
  images: string[];
  tags: string[];
  parameters: RequestedParameters;
  /** What the pictures must still be, see `InspectPicturesResult`; absent where nothing has looked at them. */
  pictureHashes?: readonly string[];
  /** Checkpoint to fetch and verify beside the pictures, or null. */
  resumeFrom: CheckpointRef | null;
}

/** Result of `download`. */
export interface DownloadResult {
  /** Directory on the pod that holds pictures, captions and the checkpoint file. */
  jobDirectory: string;
  /** Pictures of one epoch: those that are not held out, each as often as `repeats` says. */
  imageCount: number;
  /** Micro-steps of one epoch; absent in jobs that began under a version in which all pictures had one size. */
  stepsPerEpoch?: number;
  captionCount: number;
  /** What the data report finds doubtful; absent in jobs that began under a version without it. */
  doubts?: string[];
  /** Pod-local checkpoint file to restore, or null. */
  checkpointFile: string | null;
  /** SHA-256 over configuration, data and base model: equal fingerprints mean interchangeable checkpoints. */
  fingerprint: string;
  /** The complete training configuration, frozen for the whole job. */
  config: TrainingConfig;
}

/** Input of `trainEpochChunk`. */
export interface TrainEpochChunkInput {
  styleId: number;
  taskId: string;
  holdId: string;
  jobDirectory: string;
  /** State to restore when the trainer does not stand at `fromEpoch` of this job already; null: start fresh. */
  checkpointFile: string | null;
  config: TrainingConfig;
  /** Epochs done before this chunk. */
  fromEpoch: number;
  /** Micro-steps of one epoch: tells whether a trainer stands exactly at `fromEpoch`. */
  stepsPerEpoch: number;
  /** Train until this many epochs are done. */
  untilEpoch: number;
  /** What was measured on held-out pictures before this chunk, oldest first; absent where that ends no training early. */
  validationLosses?: ValidationLoss[];
  /** Receives progress webhooks. */
  webhookOrigin: string;
}

/** Result of `trainEpochChunk`. */
export interface TrainEpochChunkResult {
  /** Epochs of the whole run that are done now. */
  epochsRun: number;
  /** Micro-steps of the whole run that are done now. */
  stepsRun: number;
  /** Mean loss over the chunk's last epoch, as measured. */
  loss: number;
  /** Mean loss of each epoch in this chunk, oldest first. */
  epochLosses: number[];
  /** What was measured on held-out pictures in this chunk, oldest first; absent without validation. */
  validationLosses?: ValidationLoss[];
  /** Checkpoint file on the pod's disk, ready for `checkpoint`. */
  checkpointFile: string;
  /** Contact sheet on the pod's disk, null where none was drawn; absent from a pod under a version without them. */
  previewFile?: string | null;
  meanStepMs: number;
}

/** Heartbeat of `trainEpochChunk`, shown in the Web UI. What is measured is null before the chunk's first step. */
export interface TrainProgress {
  epoch: number;
  totalEpochs: number;
  step: number;
  totalSteps: number;
  /** Of the last step. */
  loss: number | null;
  /** The last one measured on held-out pictures in this chunk, or null; absent without validation. */
  validationLoss?: number | null;
  stepsPerSecond: number | null;
  estimatedSeconds: number | null;
}

/** Input of `checkpoint`: commits a checkpoint file of the pod to the bucket. */
export interface CheckpointInput {
  styleId: number;
  taskId: string;
  holdId: string;
  checkpointFile: string;
  /** See `TrainEpochChunkResult`; absent in jobs that began under a version without it. */
  previewFile?: string | null;
  epoch: number;
  step: number;
  fingerprint: string;
  /** Mean loss per epoch from epoch 0 on: kept in the manifest so that a resumed job shows its whole curve. */
  epochLosses: number[];
  /** The same for what was measured on held-out pictures; absent without validation. */
  validationLosses?: ValidationLoss[];
  /** True when the manifest of this epoch turned out damaged earlier: it is written anew. */
  replaceDamaged: boolean;
}

/** Result of `checkpoint`. */
export interface CheckpointResult {
  checkpoint: CheckpointRef;
  sizeBytes: number;
  uploadMs: number;
}

/** Input of `upload`: final weights in all formats, to a staging key of this attempt. */
export interface UploadInput {
  styleId: number;
  taskId: string;
  holdId: string;
  jobDirectory: string;
  checkpointFile: string;
  config: TrainingConfig;
  /** Micro-steps of the finished run. */
  totalSteps: number;
}

/** Result of `upload`. */
export interface UploadResult {
  /** Prefix in the model bucket that holds this attempt's files. */
  stagingPrefix: string;
  objects: ManifestObject[];
}

/** Input of `promote`: copies staged weights to their final keys. */
export interface PromoteInput {
  styleId: number;
  taskId: string;
  stagingPrefix: string;
  objects: ManifestObject[];
  /** Of the job's, this one included. */
  tryCount?: number;
}

/** Result of `promote`. */
export interface PromoteResult {
  /** URI of `lora_weights.safetensors` at its final key. */
  modelUri: string;
}

/** What `notify` tells the backend, exactly once per job in effect. */
export type NotifyInput =
  | {
      kind: 'complete';
      styleId: number;
      taskId: string;
      webhookOrigin: string;
      webhookId: string;
      modelUri: string;
      loss: number;
      epochs: number;
      rank: number;
      alpha: number;
    }
  | {
      kind: 'failed';
      styleId: number;
      taskId: string;
      webhookOrigin: string;
      webhookId: string;
      errorCode: string;
      errorMessage: string;
      /**
       * Not sent any more once a training of the style has been under way since this moment (milliseconds since 1970). Absent
       * where the notice is about that training.
       */
      unlessTrainedSinceMs?: number;
    }
  | {
      kind: 'progress';
      styleId: number;
      taskId: string;
      webhookOrigin: string;
      currentEpoch: number;
      totalEpochs: number;
      /** Null before a step was measured. */
      estimatedSeconds: number | null;
    };
