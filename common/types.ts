/**
 * JSON contracts between bridge, workflow and activities. Payloads carry keys, paths and numbers, never bytes or
 * secrets: everything here ends up in the workflow history.
 */

/** What a job message may set; absent ones are filled from the configuration when the bridge accepts the message. */
export interface RequestedParameters {
  /** Epochs to train, 1–1000, or null: decided by the number of images (see `defaultEpochs`). */
  epochs: number | null;
  learningRate: number | null;
  batchSize: number | null;
}

/** Input of the workflow `trainStyle`. */
export interface TrainStyleInput {
  styleId: number;
  taskId: string;
  /** Image URIs as the backend sent them (`s3://`, `gs://`, `https://`, `file://`). */
  images: string[];
  /** Caption for images without a sidecar text file. */
  tags: string[];
  parameters: RequestedParameters;
  /** Scheme, host and port of the backend that hears about this job. */
  webhookOrigin: string;
  /** What the configuration says to the workflow, frozen when the job was accepted. */
  settings: WorkflowSettings;
}

/** Time limits of one activity. */
export interface ActivityLimits {
  /** One attempt may take this long. */
  startToCloseMs: number;
  /** An attempt that sends no sign of life for this long is lost; null: it sends none. */
  heartbeatMs: number | null;
  /** The task may wait this long for a worker; null: for ever. */
  scheduleToStartMs: number | null;
  /** All attempts and the pauses between them together; null: no limit. */
  scheduleToCloseMs: number | null;
  retry: {
    initialIntervalMs: number;
    backoffCoefficient: number;
    maximumIntervalMs: number;
    /** Attempts in all; 1: the workflow itself decides about another one; null: unlimited. */
    maximumAttempts: number | null;
  };
}

/** The activities by the name of their limits; `notifyProgress` is `notify` with a progress notice. */
export type LimitName =
  | 'holdPod'
  | 'findResumePoint'
  | 'download'
  | 'trainEpochChunk'
  | 'checkpoint'
  | 'upload'
  | 'promote'
  | 'notify'
  | 'notifyProgress';

/** Configuration as plain data: workflow code can read neither files nor the environment. */
export interface WorkflowSettings {
  /** Shared task queue of the pods. */
  podsQueue: string;
  /** Epochs per `trainEpochChunk`, and so between two checkpoints. */
  chunkEpochs: number;
  /** Pods lost in a row, without a checkpoint committed in between, before an operator is asked. */
  podLossBudget: number;
  /** Attempts that one step of a job gets when an application error makes it fail. */
  applicationAttempts: number;
  /** False where the namespace does not know our search attributes: then the workflow must not set any. */
  searchAttributes: boolean;
  limits: Record<LimitName, ActivityLimits>;
}

/** Memo of every `trainStyle` workflow: how a redelivered message is told from a new task of the same style. */
export interface TrainStyleMemo {
  taskId: string;
}

/** How frozen weights are held; LoRA and optimizer are always float32. */
export type MixedPrecision = 'no' | 'fp16' | 'bf16';

/** The recipe's numbers for one training run (see `common/training-config.ts` for keys, ranges and defaults). */
export interface TrainingConfig {
  seed: number;
  rank: number;
  alpha: number;
  dropout: number;
  learningRate: number;
  weightDecay: number;
  epochs: number;
  batchSize: number;
  gradientAccumulation: number;
  /** Total-norm limit of the gradient, or null for none. */
  maxGradNorm: number | null;
  mixedPrecision: MixedPrecision;
  /** Training pictures are resized to this many pixels on each side. */
  resolutionPx: number;
}

/** Where a job stands, in the order of its life; the search attribute `TrainPhase` holds it. */
export type TrainPhase =
  | 'queued'
  | 'waiting-for-pod'
  | 'preparing'
  | 'training'
  | 'publishing'
  | 'notifying'
  | 'paused'
  | 'awaiting-operator'
  | 'done'
  | 'failed'
  | 'cancelled';

/** Signal `podHeld`: a pod has given its only slot to this job. */
export interface PodHeld {
  holdId: string;
  /** The pod's private task queue. */
  queue: string;
  host: string;
  /** GPU name, or 'cpu'. */
  gpu: string;
  vramMiB: number | null;
}

/** What a manifest records of one object it commits. */
export interface ManifestObject {
  key: string;
  sizeBytes: number;
  sha256: string;
}

/** A committed checkpoint, as found in the bucket. */
export interface CheckpointRef {
  manifestKey: string;
  epoch: number;
  step: number;
  fingerprint: string;
}

/** Input of `holdPod`: takes the only slot of a pod for one job. */
export interface HoldPodInput {
  holdId: string;
  styleId: number;
  taskId: string;
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
}

/** Input of `download`: pictures, captions and the checkpoint, onto the pod that is held. */
export interface DownloadInput {
  styleId: number;
  taskId: string;
  holdId: string;
  images: string[];
  tags: string[];
  parameters: RequestedParameters;
  /** Checkpoint to fetch and verify beside the pictures, or null. */
  resumeFrom: CheckpointRef | null;
}

/** Result of `download`. */
export interface DownloadResult {
  /** Directory on the pod that holds pictures, captions and the checkpoint file. */
  jobDirectory: string;
  imageCount: number;
  captionCount: number;
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
  fingerprint: string;
  config: TrainingConfig;
  /** Epochs done before this chunk. */
  fromEpoch: number;
  /** Micro-steps of one epoch: tells whether a trainer stands exactly at `fromEpoch`. */
  stepsPerEpoch: number;
  /** Train until this many epochs are done. */
  untilEpoch: number;
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
  /** Checkpoint file on the pod's disk, ready for `checkpoint`. */
  checkpointFile: string;
  meanStepMs: number;
}

/** Heartbeat of `trainEpochChunk`, shown in the Web UI. */
export interface TrainProgress {
  epoch: number;
  totalEpochs: number;
  step: number;
  totalSteps: number;
  loss: number;
  stepsPerSecond: number;
  estimatedSeconds: number;
}

/** Input of `checkpoint`: commits a checkpoint file of the pod to the bucket. */
export interface CheckpointInput {
  styleId: number;
  taskId: string;
  holdId: string;
  checkpointFile: string;
  epoch: number;
  step: number;
  fingerprint: string;
  /** Mean loss per epoch from epoch 0 on: kept in the manifest so that a resumed job shows its whole curve. */
  epochLosses: number[];
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
    }
  | {
      kind: 'progress';
      styleId: number;
      taskId: string;
      webhookOrigin: string;
      currentEpoch: number;
      totalEpochs: number;
      estimatedSeconds: number;
    };

/** Result of the workflow `trainStyle`. */
export interface TrainStyleResult {
  modelUri: string;
  loss: number;
  epochs: number;
  /** Pods lost on the way. */
  podLosses: number;
}

/** Answer of the query `status`. */
export interface TrainStatus {
  phase: TrainPhase;
  /** Why the job waits, in words, or null while it works. */
  reason: string | null;
  styleId: number;
  taskId: string;
  epoch: number;
  totalEpochs: number | null;
  loss: number | null;
  host: string | null;
  gpu: string | null;
  lastCheckpoint: CheckpointRef | null;
  podLosses: number;
  lastError: { code: string; message: string } | null;
}
