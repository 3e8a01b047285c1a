import type { MixedPrecision, SampleLora, SamplerName, TrainingConfig } from './types.ts';

/** What a trainer reports after each micro-step. */
export interface StepReport {
  /** Micro-step, from 0. */
  step: number;
  /** Epoch the step belongs to, from 0. */
  epoch: number;
  loss: number;
  timesteps: number[];
  learningRate: number;
  durationMs: number;
}

/** Everything that defines one run: the trainer draws no other input. */
export interface TrainerJob {
  /** Names the run (`<taskId>/<holdId>` or `cli`): a trainer that already holds this run at the right epoch goes on without reloading. */
  jobId: string;
  /** Pod-local base model directory (diffusers layout). */
  baseModelDirectory: string;
  /** What the exported adapter config calls the base model: a hub id or the name of a folder or file, never a path. */
  baseModelName: string;
  /** Directory of pictures with their sidecar `.txt` captions. */
  imageDirectory: string;
  /** Caption of a picture without sidecar. */
  fallbackCaption: string;
  config: TrainingConfig;
  /** Put into each log line that the trainer prints while it has this job. */
  logLabels: Readonly<Record<string, string | number>>;
}

/** Counts of work done in a run. */
export interface TrainerPosition {
  epochsRun: number;
  microStepsRun: number;
  optimizerStepsRun: number;
}

/** How pictures are drawn, apart from what they show. */
export interface SampleSettings {
  sampler: SamplerName;
  stepCount: number;
  /** How much the prompt counts; 1 or less: no guidance, and the negative prompt is not used. */
  guidanceScale: number;
}

/** A picture to draw. */
export interface SampleRequest extends SampleSettings {
  prompt: string;
  negativePrompt: string;
  /** Of the initial noise: same seed, same picture. */
  seed: number;
  widthPx: number;
  heightPx: number;
  lora: SampleLora;
  /** PNG to write. */
  file: string;
}

/** How contact sheets look, whatever the job. */
export type SheetStyle = Omit<SheetRequest, 'epoch' | 'directory' | 'file'>;

/** A contact sheet of a job: a row for each prompt, on the left the base model's picture, on the right the job's. */
export interface SheetRequest extends SampleSettings {
  /** `{caption}` stands for the job's next caption that differs from those before, `{trigger}` for its trigger word. */
  prompts: string[];
  /** Of the first row; each further row has the next one. */
  seed: number;
  /**
   * Side of each picture, or of the square that a picture of a job with aspect buckets has the area of; null, or more than
   * they are trained in: as they are trained.
   */
  sidePx: number | null;
  /** Epochs done, for the title. */
  epoch: number;
  /** Where the base model's pictures are kept for the next sheet of the same job. Made when absent. */
  directory: string;
  /** PNG to write. */
  file: string;
}

/** What the trainer runs on. */
export interface TrainerRuntime {
  device: 'cpu' | 'cuda';
  gpuName: string | null;
  gpuMemoryMiB: number | null;
  torch: string;
  /** CPU threads of the trainer: CPU results are equal bit for bit only under equal counts. */
  threadCount: number;
  mixedPrecisionDefault: MixedPrecision;
}

/**
 * One trainer process. It outlives chunks and jobs and keeps the base model loaded. Every call rejects with a class of
 * `common/errors.ts`; a trainer that died is started anew by the next `prepare`.
 */
export interface Trainer {
  runtime(): Promise<TrainerRuntime>;
  /** Loads base model, pictures and captions, then restores `checkpointFile` when given. Returns where the run stands. */
  prepare(job: TrainerJob, checkpointFile: string | null, signal: AbortSignal): Promise<TrainerPosition>;
  /** Where the loaded run of `jobId` stands, or null when the trainer does not hold that job. */
  position(jobId: string): TrainerPosition | null;
  /** Trains until `untilEpoch` epochs are done; `stopped` when the signal ended it first (at a step boundary). */
  train(
    untilEpoch: number,
    onStep: (report: StepReport) => void,
    signal: AbortSignal,
  ): Promise<{ position: TrainerPosition; stopped: boolean }>;
  /**
   * Mean loss of the run's result, as it stands, on the pictures that are held out of training; null when the signal
   * ended it first. Not finite where the model's precision overflows.
   */
  validate(signal: AbortSignal): Promise<number | null>;
  /** Writes the run's state to one safetensors file, atomically. */
  saveCheckpoint(file: string): Promise<TrainerPosition>;
  /**
   * Writes `lora_weights.safetensors`, `peft/`, `kohya.safetensors` below `directory`, and `peft_text_encoder/` where
   * that is trained.
   */
  exportWeights(directory: string): Promise<void>;
  /**
   * Draws a contact sheet of the job that is prepared; changes no weights. Rejects with the signal's reason when that
   * ended it, which it does at the sampler's next step.
   */
  drawSheet(request: SheetRequest, signal: AbortSignal): Promise<void>;
  /**
   * Ends the process at once (it holds nothing that is not in a checkpoint). Whatever is under way rejects within seconds; a
   * process that does not even go then is not waited for, and no other is started beside it. Idempotent.
   */
  kill(): Promise<void>;
}
