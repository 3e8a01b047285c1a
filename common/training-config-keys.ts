import type { LrScheduler, MixedPrecision, OptimizerName, ResizeMode, TrainingConfig } from './types.ts';

/** One knob of the recipe: how it is written in JSON and YAML, what it may be, and what it does. */
export interface TrainingConfigKey {
  /** Field of {@link TrainingConfig}. */
  field: keyof TrainingConfig;
  /** Value when nobody sets it; null: off, or decided at run time, as `meaning` says. */
  default: number | string | boolean | null;
  kind: 'integer' | 'number' | 'choice' | 'switch' | 'text';
  /** Smallest and largest allowed number, or number of characters of a text, both included. */
  min: number;
  max: number;
  /** Numbers between its multiples are refused; 0: none are. */
  multipleOf: number;
  /** What a choice may be. */
  choices: readonly string[];
  /** True where `null` switches the knob off. */
  nullable: boolean;
  /**
   * Whether it is part of a run's fingerprint. `unless-default` is for keys that came later: at its default, the
   * fingerprint is what it was before there was the key; `never` for what changes no result.
   */
  inFingerprint: 'always' | 'unless-default' | 'never';
  /** What it does, with the trade-off. */
  meaning: string;
}

/** A row of the table but for its meaning. */
type Shape = Omit<TrainingConfigKey, 'meaning'>;
type Field = keyof TrainingConfig;

const BLANK = { min: 0, max: 0, multipleOf: 0, choices: [], nullable: false, inFingerprint: 'always' } as const;

const integer = (field: Field, value: number | null, min: number, max: number): Shape => {
  return { ...BLANK, field, default: value, kind: 'integer', min, max };
};

const decimal = (field: Field, value: number | null, min: number, max: number): Shape => {
  return { ...BLANK, field, default: value, kind: 'number', min, max };
};

const choice = (field: Field, value: string | null, choices: readonly string[]): Shape => {
  return { ...BLANK, field, default: value, kind: 'choice', choices };
};

const toggle = (field: Field, value: boolean): Shape => {
  return { ...BLANK, field, default: value, kind: 'switch' };
};

const text = (field: Field, value: string | null, min: number, max: number): Shape => {
  return { ...BLANK, field, default: value, kind: 'text', min, max };
};

const orNull = (shape: Shape): Shape => ({ ...shape, nullable: true });

const later = (shape: Shape): Shape => ({ ...shape, inFingerprint: 'unless-default' });

const MIXED_PRECISIONS: readonly MixedPrecision[] = ['no', 'fp16', 'bf16'];
const OPTIMIZERS: readonly OptimizerName[] = ['adamw', 'lion', 'prodigy'];
const LR_SCHEDULERS: readonly LrScheduler[] = ['constant', 'linear', 'cosine'];

const RESIZE_MODES: readonly ResizeMode[] = ['crop', 'stretch', 'bucket'];

/** Every key of a training configuration file, in the order in which they are documented. */
export const TRAINING_CONFIG_KEYS: Readonly<Record<string, TrainingConfigKey>> = {
  seed: {
    ...integer('seed', 0, 0, Number.MAX_SAFE_INTEGER),
    meaning: 'All random draws derive from it: same seed, same weights.',
  },
  rank: {
    ...integer('rank', 16, 1, 256),
    meaning: 'Size of the LoRA: higher holds more of the style, makes a bigger file, overfits sooner.',
  },
  alpha: {
    ...decimal('alpha', 32, 0.001, 1024),
    meaning: 'The LoRA counts alpha/rank times: higher is a stronger style at the same learning rate.',
  },
  dropout: {
    ...decimal('dropout', 0.1, 0, 0.9),
    meaning: 'Share of LoRA inputs dropped at each step: higher overfits less and learns slower.',
  },
  optimizer: {
    ...later(choice('optimizer', 'adamw', OPTIMIZERS)),
    meaning:
      '"adamw" suits most jobs; "lion" halves the state, with a lower rate and more decay; "prodigy" saves the search for a rate.',
  },
  learning_rate: {
    ...decimal('learningRate', null, 1e-8, 1),
    meaning: 'Step size: higher learns faster and gets unstable sooner; unset: 0.0001, lion 0.00003, prodigy 1.',
  },
  lr_scheduler: {
    ...later(choice('lrScheduler', 'constant', LR_SCHEDULERS)),
    meaning: 'How the learning rate ends: "linear" and "cosine" fall to 0 over the run, for a calmer end.',
  },
  lr_warmup_steps: {
    ...later(integer('lrWarmupSteps', 0, 0, 100_000)),
    meaning: 'Optimizer steps in which the learning rate rises from 0: steadier at high rates and with Lion.',
  },
  weight_decay: {
    ...decimal('weightDecay', 0.01, 0, 1),
    meaning:
      'Share of the LoRA weights, times the learning rate, that a step takes off: raise it where long runs overfit; 0.1 with Lion.',
  },
  epochs: {
    ...integer('epochs', null, 1, 1000),
    meaning:
      'Passes over all pictures: more where the style is weak, fewer where pictures come back whole; unset: about 4000 steps, 100 to 500.',
  },
  batch_size: {
    ...integer('batchSize', 1, 1, 16),
    meaning: 'Pictures per step: higher is smoother and needs more memory.',
  },
  gradient_accumulation: {
    ...integer('gradientAccumulation', 1, 1, 64),
    meaning: 'Steps per optimizer step: a bigger batch in the same memory.',
  },
  max_grad_norm: {
    ...orNull(decimal('maxGradNorm', null, 1e-6, 1e6)),
    meaning: 'Gradients are scaled down to this total norm: steadier at high learning rates; null: never.',
  },
  min_snr_gamma: {
    ...later(orNull(decimal('minSnrGamma', null, 0.1, 1000))),
    meaning: 'Weighs down the easy, little noisy timesteps, 5 as a rule: converges faster; null: all count alike.',
  },
  noise_offset: {
    ...later(decimal('noiseOffset', 0, 0, 1)),
    meaning: 'Shifts the noise per channel, 0.05 as a rule: lets the LoRA learn very dark and very bright pictures.',
  },
  ema_decay: {
    ...later(orNull(decimal('emaDecay', null, 0, 0.99999))),
    meaning:
      'The result is a moving average that keeps this share per step, e.g. 0.99: smoother; null: the last state.',
  },
  flip: {
    ...later(toggle('flip', false)),
    meaning: 'Mirrors half of the pictures: more to learn from, but not where left and right matter (lettering).',
  },
  caption_dropout: {
    ...later(decimal('captionDropout', 0, 0, 1)),
    meaning: 'Share of pictures trained without caption: 0.1 makes the style show more without its words.',
  },
  train_text_encoder: {
    ...later(toggle('trainTextEncoder', false)),
    meaning: 'Trains the text encoder too: new words come to mean the style; a little slower, overfits sooner.',
  },
  text_encoder_learning_rate: {
    ...later(orNull(decimal('textEncoderLearningRate', null, 1e-8, 1))),
    meaning: 'Learning rate of the text encoder where it is trained, half of the other as a rule; null: the same.',
  },
  mixed_precision: {
    ...choice('mixedPrecision', null, MIXED_PRECISIONS),
    meaning:
      'How frozen weights are held: "fp16" is quick and the finer half; "bf16" has float32\'s range, for jobs whose loss is not finite in fp16; "no" is exact and slow; unset: fp16 on a GPU, no on a CPU.',
  },
  resolution: {
    ...integer('resolutionPx', 512, 64, 1024),
    multipleOf: 8,
    meaning:
      'Side of square training pictures in pixels, a multiple of 64 for SD 1.5, which knows 512: higher for fine detail, lower to try things; no bucket has a greater area.',
  },
  resize_mode: {
    ...later(choice('resizeMode', 'crop', RESIZE_MODES)),
    meaning:
      '"crop" makes squares of the middle, for what is about square; "stretch" of the whole, bent, where nothing may be cut off; "bucket" keeps shapes, in several sizes, for wide and tall pictures.',
  },
  repeats: {
    ...later(integer('repeats', 1, 1, 20)),
    meaning: 'How often each picture comes in an epoch: more steps between two checkpoints where pictures are few.',
  },
  trigger_word: {
    ...later(orNull(text('triggerWord', null, 1, 100))),
    meaning: 'Put in front of captions that lack it, so that the style answers to it; null: none.',
  },
  validation_pictures: {
    ...later(integer('validationPictures', 0, 0, 1000)),
    meaning: 'Pictures held out of training to measure it on, a tenth as a rule; costs as many to learn from; 0: none.',
  },
  validation_every_epochs: {
    ...later(integer('validationEveryEpochs', 5, 1, 1000)),
    meaning: 'Epochs from one measurement on the held-out pictures to the next: lower shows more and takes longer.',
  },
  early_stop_patience: {
    ...later(orNull(integer('earlyStopPatience', null, 1, 1000))),
    meaning: 'Training ends after so many measurements without a better one: saves time; null: never before its end.',
  },
  early_stop_min_delta: {
    ...later(decimal('earlyStopMinDelta', 0, 0, 0.5)),
    meaning: 'Share of the best measurement by which a better one is lower, e.g. 0.002: higher stops sooner.',
  },
  gradient_checkpointing: {
    ...toggle('gradientCheckpointing', false),
    inFingerprint: 'never',
    meaning: 'Less memory for more time; same weights. Switched on by itself when a GPU runs out of memory.',
  },
};
