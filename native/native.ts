/**
 * Declarations of the raw addon, nothing else. Same names and order as the C++ structs in `native/core` and
 * `native/binding/convert.h`; every property is always set, absent is `null`.
 */

import type { MixedPrecision, SampleLora, SamplerName, TrainingConfig } from '../common/types.ts';

/** Where tensors live and how many CPU threads libtorch may use. */
export interface NativeTrainerOptions {
  device: 'cpu' | 'cuda';
  /** Intra-op CPU threads, at least 1. Part of what makes CPU results reproducible. */
  threadCount: number;
}

/** A diffusers-layout base model directory, the precision of its frozen weights, and a LoRA to draw with. */
export interface NativeBaseModelOptions {
  directory: string;
  mixedPrecision: MixedPrecision;
  /** A LoRA file or PEFT directory, or null. Part of it goes into the weights: with one, nothing but `sample` works. */
  lora: string | null;
}

/** What the base model's own `config.json` files say. */
export interface NativeBaseModelInfo {
  unetParameterCount: number;
  loraModuleCount: number;
  vaeScaleFactorPx: number;
  textTokenCount: number;
  predictionType: 'epsilon' | 'v_prediction';
}

/** One training picture: decoded, resized, sRGB. */
export interface NativeImage {
  /** Sort key of the recipe (file name). */
  name: string;
  widthPx: number;
  heightPx: number;
  /** RGB, 8 bit, row by row: heightPx × widthPx × 3 bytes. */
  pixels: Uint8Array;
  /** Padded and truncated caption, `textTokenCount` ids. */
  tokenIds: Int32Array;
}

/** The recipe's numbers for one job, as in every other place. Pictures come in their final size, each once. */
export type NativeTrainingConfig = Omit<
  TrainingConfig,
  | 'resolutionPx'
  | 'resizeMode'
  | 'triggerWord'
  | 'validationPictures'
  | 'validationEveryEpochs'
  | 'earlyStopPatience'
  | 'earlyStopMinDelta'
>;

/** One training run: its numbers and its pictures. */
export interface NativeJob {
  config: NativeTrainingConfig;
  images: NativeImage[];
  /** Held out of training, for {@link NativeTrainer.validate}; may be empty. */
  validationImages: NativeImage[];
  /** The empty caption, for caption dropout: padded, `textTokenCount` ids. */
  emptyTokenIds: Int32Array;
}

/** Where a run stands. All counts are of work already done. */
export interface NativePosition {
  epochsRun: number;
  microStepsRun: number;
  optimizerStepsRun: number;
}

/** One finished micro-step. `step` counts micro-steps from 0. */
export interface NativeStepReport {
  step: number;
  epoch: number;
  loss: number;
  timesteps: number[];
  learningRate: number;
  /** Wall time of this micro-step. */
  durationMs: number;
}

/** How a call of `train` ended. */
export interface NativeTrainResult {
  position: NativePosition;
  /** True when `stop()` ended the run before `untilEpoch`. */
  stopped: boolean;
}

/** Paths to write and what goes into the file headers (strings only; nothing of the customer's). */
export interface NativeExportOptions {
  /**
   * Receives `lora_weights.safetensors`, `peft/adapter_config.json`, `peft/adapter_model.safetensors`, `kohya.safetensors`;
   * where the text encoder is trained the two PEFT files in `peft_text_encoder/` as well.
   */
  directory: string;
  /** Written to `base_model_name_or_path` of the PEFT config. */
  baseModelName: string;
  /** Side of a square training picture, written to `modelspec.resolution` of the kohya file. */
  resolutionPx: number;
}

/** What to draw and how. */
export interface NativeSampleOptions {
  tokenIds: Int32Array;
  negativeTokenIds: Int32Array;
  stepCount: number;
  guidanceScale: number;
  seed: number;
  widthPx: number;
  heightPx: number;
  sampler: SamplerName;
  lora: SampleLora;
}

/** A drawn picture: RGB, 8 bit, row by row. */
export interface NativePicture {
  widthPx: number;
  heightPx: number;
  pixels: Uint8Array;
}

/**
 * One trainer: at most one base model and one job at a time. Each promise runs on the trainer's own thread, one call
 * after the other; only `stop()` may be called while another call is under way. Rejections are `Error`s whose `name` is a
 * native error name that `native/errors.ts` knows.
 */
export interface NativeTrainer {
  loadBaseModel(options: NativeBaseModelOptions): Promise<NativeBaseModelInfo>;
  /** Encodes pictures and captions, draws the initial LoRA: the run stands at step 0 afterwards. */
  startJob(job: NativeJob): Promise<void>;
  /** Replaces the run's state by a checkpoint file's (safetensors). */
  restore(checkpointFile: string): Promise<NativePosition>;
  /** Trains until `untilEpoch` epochs are done or `stop()`; `onStep` is called on the JS thread, in order. */
  train(untilEpoch: number, onStep: (report: NativeStepReport) => void): Promise<NativeTrainResult>;
  /** Mean loss of the run's result on the held-out pictures; null when `stop()` ended it first. */
  validate(): Promise<number | null>;
  /**
   * Makes a running `train` return after the current micro-step, a running `validate` or `sample` before its
   * next pass of the model.
   */
  stop(): void;
  /** Writes the whole run state to one safetensors file, atomically (temporary file, then rename). */
  saveCheckpoint(file: string): Promise<NativePosition>;
  exportWeights(options: NativeExportOptions): Promise<void>;
  /**
   * Needs a base model, with `lora: 'job'` a job, with `'file'` one that was loaded with a LoRA, with `'none'` one
   * without. Null when `stop()` ended it.
   */
  sample(options: NativeSampleOptions): Promise<NativePicture | null>;
}

/** Sizes of a random base model with Stable Diffusion 1.5's structure, for demos and tests. */
export interface NativeRandomBaseModelOptions {
  directory: string;
  /** Named preset: 'tiny' (2 levels, tests) or 'small' (4 levels like SD 1.5, demo). */
  preset: 'tiny' | 'small';
  seed: number;
}

/** What the binary exports. */
export interface NativeAddon {
  Trainer: new (options: NativeTrainerOptions) => NativeTrainer;
  /** Writes a diffusers-layout model directory (weights and config.json files; the tokenizer is not its business). */
  writeRandomBaseModel(options: NativeRandomBaseModelOptions): Promise<void>;
  /** From now on this process ends by SIGKILL when the thread ends that has started it. */
  endWithParent(): void;
  /** e.g. { torch: '2.11.0', cuda: null, gpuName: null, gpuMemoryMiB: null }. */
  runtimeInfo(): { torch: string; cuda: string | null; gpuName: string | null; gpuMemoryMiB: number | null };
}
