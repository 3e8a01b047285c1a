/**
 * JSON contracts between bridge, workflow and activities. Payloads carry keys, paths and numbers, never bytes or
 * secrets of ours: everything here ends up in the workflow history, the images' URIs as the backend signed them too.
 */

/** What a job message may set; the pod fills the rest from its configuration when it downloads the pictures. */
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
  /** What is told before a pod has settled it, by the bridge's configuration. */
  expectedEpochs: number;
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
  | 'inspectPictures'
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
  /** Jobs accepted by a version without `inspectPictures` have no limits for it. */
  limits: Record<Exclude<LimitName, 'inspectPictures'>, ActivityLimits> &
    Partial<Record<'inspectPictures', ActivityLimits>>;
}

/** Details of the failures that activities report. */
export interface FailureDetails {
  /** Not to be tried again before this time has passed, as the other side asked. */
  retryAfterMs?: number;
}

/** Memo of every `trainStyle` workflow: how a redelivered message is told from a new task of the same style. */
export interface TrainStyleMemo {
  taskId: string;
  /** Tasks of the style that ran before, newest first; jobs of before don't have it. */
  earlierTaskIds?: string[];
}

/** How frozen weights are held; LoRA and optimizer are always float32. */
export type MixedPrecision = 'no' | 'fp16' | 'bf16';

/** The update rule of the LoRA weights. */
export type OptimizerName = 'adamw' | 'lion' | 'prodigy';

/** What becomes of the learning rate after the warm-up. */
export type LrScheduler = 'constant' | 'linear' | 'cosine';

/** How a picture comes out of noise: "dpm++" is DPM-Solver++ (2M), which needs fewer steps than "ddim". */
export type SamplerName = 'ddim' | 'dpm++';

/** Which LoRA a picture is drawn with: none, that of the job under way, or that of a file. */
export type SampleLora = 'none' | 'job' | 'file';

/**
 * How pictures get their size: squares of short side and centre, squares of each side by itself, or the size of about
 * the same area that has the nearest aspect ratio.
 */
export type ResizeMode = 'crop' | 'stretch' | 'bucket';

/** The recipe's numbers for one training run (see `common/training-config-keys.ts` for keys, ranges and defaults). */
export interface TrainingConfig {
  seed: number;
  rank: number;
  alpha: number;
  dropout: number;
  optimizer: OptimizerName;
  learningRate: number;
  lrScheduler: LrScheduler;
  /** Optimizer steps, from 0 to the full learning rate. */
  lrWarmupSteps: number;
  weightDecay: number;
  epochs: number;
  batchSize: number;
  gradientAccumulation: number;
  /** Total-norm limit of the gradient, or null for none. */
  maxGradNorm: number | null;
  /** Min-SNR loss weighting, or null for none. */
  minSnrGamma: number | null;
  noiseOffset: number;
  /** Share of the moving average that an optimizer step keeps, or null for no average. */
  emaDecay: number | null;
  /** Whether half of the pictures are mirrored. */
  flip: boolean;
  /** Probability of the empty caption. */
  captionDropout: number;
  /** Whether the text encoder gets a LoRA as well. */
  trainTextEncoder: boolean;
  /** Learning rate of the text encoder's LoRA, or null for the same as the UNet's. */
  textEncoderLearningRate: number | null;
  mixedPrecision: MixedPrecision;
  /** Training pictures are resized to this many pixels on each side, or to no greater an area. */
  resolutionPx: number;
  resizeMode: ResizeMode;
  /** How often each picture comes in an epoch. */
  repeats: number;
  /** Put in front of captions that lack it, or null for none. */
  triggerWord: string | null;
  /** Pictures held out of training; 0: no validation. */
  validationPictures: number;
  /** Epochs from one validation to the next. */
  validationEveryEpochs: number;
  /** Validations without a better one after which training ends, or null for never. */
  earlyStopPatience: number | null;
  /** Share of the best validation loss by which a better one is lower. */
  earlyStopMinDelta: number;
  /** Less memory for more computation; changes no result. */
  gradientCheckpointing: boolean;
}

/** A measurement on the pictures that are held out of training. */
export interface ValidationLoss {
  /** Epochs trained before it; 0: the base model. */
  epoch: number;
  loss: number;
}

/** Input of the workflow `tellRefusal`. */
export interface RefusalInput {
  styleId: number;
  /** Made from the message's content: the same for a message that comes again. */
  messageId: string;
  webhookOrigin: string;
  errorCode: string;
  errorMessage: string;
  /** When it was refused first (milliseconds since 1970), where that was not now; absent in refusals of before, too. */
  firstSeenMs?: number;
  settings: WorkflowSettings;
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
  /** Contact sheet in the bucket; absent where there is none. */
  previewKey?: string;
}

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
  /** The last one measured on held-out pictures, or null. */
  validationLoss: number | null;
  /** Why training ended before its last epoch, or null. */
  earlyStop: string | null;
  host: string | null;
  gpu: string | null;
  lastCheckpoint: CheckpointRef | null;
  podLosses: number;
  lastError: { code: string; message: string } | null;
  /** What the data report finds doubtful, a line each. */
  dataDoubts: string[];
  /** URI of the whole data report, or null while there is none. */
  dataReport: string | null;
}
