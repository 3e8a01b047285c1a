import { InvalidRequestError } from './errors.ts';
import { nearest } from './nearest.ts';
import type { MixedPrecision, RequestedParameters, TrainingConfig } from './types.ts';

/** One knob of the recipe: how it is written in JSON and YAML, what it may be, and what it does. */
export interface TrainingConfigKey {
  /** Field of {@link TrainingConfig}. */
  field: keyof TrainingConfig;
  /** Value when nobody sets it; null: decided at run time, as `meaning` says. */
  default: number | boolean | MixedPrecision | null;
  kind: 'integer' | 'number' | 'precision' | 'boolean';
  /** Smallest and largest allowed number, both included. */
  min: number;
  max: number;
  /** True where `null` switches the knob off. */
  nullable: boolean;
  /** What it does, with the trade-off. */
  meaning: string;
}

const MIXED_PRECISIONS: readonly MixedPrecision[] = ['no', 'fp16', 'bf16'];

const integer = (field: keyof TrainingConfig, value: number | null, min: number, max: number, meaning: string) =>
  ({ field, default: value, kind: 'integer', min, max, nullable: false, meaning }) satisfies TrainingConfigKey;

const decimal = (field: keyof TrainingConfig, value: number | null, min: number, max: number, meaning: string) =>
  ({ field, default: value, kind: 'number', min, max, nullable: false, meaning }) satisfies TrainingConfigKey;

/** Every key of a training configuration file, in the order in which they are documented. */
export const TRAINING_CONFIG_KEYS: Readonly<Record<string, TrainingConfigKey>> = {
  seed: integer('seed', 0, 0, Number.MAX_SAFE_INTEGER, 'All random draws derive from it: same seed, same weights.'),
  rank: integer(
    'rank',
    16,
    1,
    256,
    'Size of the LoRA: higher holds more of the style, makes a bigger file, overfits sooner.',
  ),
  alpha: decimal(
    'alpha',
    32,
    0.001,
    1024,
    'The LoRA counts alpha/rank times: higher is a stronger style at the same learning rate.',
  ),
  dropout: decimal(
    'dropout',
    0.1,
    0,
    0.9,
    'Share of LoRA inputs dropped at each step: higher overfits less and learns slower.',
  ),
  learning_rate: decimal(
    'learningRate',
    1e-4,
    1e-8,
    1,
    'AdamW step size: higher learns faster and gets unstable sooner.',
  ),
  weight_decay: decimal('weightDecay', 0.01, 0, 1, 'Decoupled AdamW decay of the LoRA weights.'),
  epochs: integer('epochs', null, 1, 1000, 'Passes over all pictures; unset: about 4000 steps, see defaultEpochs.'),
  batch_size: integer('batchSize', 1, 1, 16, 'Pictures per step: higher is smoother and needs more memory.'),
  gradient_accumulation: integer(
    'gradientAccumulation',
    1,
    1,
    64,
    'Steps per optimizer step: a bigger batch in the same memory.',
  ),
  max_grad_norm: {
    ...decimal(
      'maxGradNorm',
      null,
      1e-6,
      1e6,
      'Gradients are scaled down to this total norm: steadier at high learning rates; null: never.',
    ),
    nullable: true,
  },
  mixed_precision: {
    field: 'mixedPrecision',
    default: null,
    kind: 'precision',
    min: 0,
    max: 0,
    nullable: false,
    meaning: 'How frozen weights are held: "no", "fp16" or "bf16"; unset: fp16 on a GPU, no on a CPU.',
  },
  resolution: integer(
    'resolutionPx',
    512,
    64,
    1024,
    'Side of the training pictures in pixels, a multiple of 8; SD 1.5 knows 512.',
  ),
  gradient_checkpointing: {
    field: 'gradientCheckpointing',
    default: false,
    kind: 'boolean',
    min: 0,
    max: 0,
    nullable: false,
    meaning: 'Less memory for more time; same weights. Switched on by itself when a GPU runs out of memory.',
  },
};

/** Values from a configuration file; what it does not set is absent. */
export type PartialTrainingConfig = Partial<TrainingConfig>;

/** What a configuration can't know by itself. */
export interface TrainingConfigContext {
  imageCount: number;
  /** What this device does best, see `TrainerRuntime`. */
  mixedPrecisionDefault: MixedPrecision;
}

function faultOf(name: string, key: TrainingConfigKey, value: unknown): string | null {
  const show = JSON.stringify(value) ?? 'undefined';
  if (value === null && key.nullable) return null;
  if (key.kind === 'precision') {
    if (MIXED_PRECISIONS.some((precision) => precision === value)) return null;
    return `${name} must be "no", "fp16" or "bf16", but is ${show}`;
  }
  if (key.kind === 'boolean')
    return typeof value === 'boolean' ? null : `${name} must be true or false, but is ${show}`;
  const kind = key.kind === 'integer' ? 'a whole number' : 'a number';
  const range = `${kind} from ${key.min} to ${key.max}${key.nullable ? ', or null' : ''}`;
  if (typeof value !== 'number' || !(value >= key.min && value <= key.max))
    return `${name} must be ${range}, but is ${show}`;
  if (key.kind === 'integer' && !Number.isInteger(value)) return `${name} must be ${range}, but is ${show}`;
  if (key.field === 'resolutionPx' && value % 8 !== 0) return `${name} must be a multiple of 8, but is ${show}`;
  return null;
}

/**
 * Checks a configuration as read from JSON or YAML, with keys as in {@link TRAINING_CONFIG_KEYS}.
 *
 * @param json - the parsed file
 * @returns what the file sets, and a phrase for every unknown key and every value out of range
 */
export function readTrainingConfig(json: unknown): { values: PartialTrainingConfig; faults: string[] } {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    return { values: {}, faults: ['it must be an object like {"rank": 16, "epochs": 200}'] };
  }
  const faults: string[] = [];
  const values: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(json)) {
    const key = Object.hasOwn(TRAINING_CONFIG_KEYS, name) ? TRAINING_CONFIG_KEYS[name] : undefined;
    if (key === undefined) {
      const names = Object.keys(TRAINING_CONFIG_KEYS);
      const hint = nearest(name, names);
      faults.push(
        `unknown key "${name}"${hint === null ? ` (known: ${names.join(', ')})` : ` (did you mean "${hint}"?)`}`,
      );
      continue;
    }
    const fault = faultOf(name, key, value);
    if (fault === null) values[key.field] = value;
    else faults.push(fault);
  }
  return { values, faults };
}

/**
 * Like {@link readTrainingConfig}, for configurations that people hand in.
 *
 * @param json - the parsed file
 * @param where - named in the error, e.g. the file
 * @returns what the file sets
 * @throws InvalidRequestError naming every fault at once
 */
export function parseTrainingConfig(json: unknown, where = 'The training configuration'): PartialTrainingConfig {
  const { values, faults } = readTrainingConfig(json);
  if (faults.length > 0) throw new InvalidRequestError(`${where} can't be used: ${faults.join('; ')}.`);
  return values;
}

/**
 * Epochs when nobody asks for a number: as many as make about 4000 steps of one picture (what the recipe's learning
 * rate was tried with), rounded to tens so that the last chunk is a full one, and 100–500 as the contract says.
 *
 * @param imageCount - pictures in the data set, at least 1
 */
export function defaultEpochs(imageCount: number): number {
  return Math.min(500, Math.max(100, Math.round(4000 / imageCount / 10) * 10));
}

/**
 * The message's training parameters, in the words of a configuration file.
 *
 * @param parameters - as the bridge read them
 */
export function requestedTrainingConfig(parameters: RequestedParameters): Record<string, number> {
  const requested: Record<string, number> = {};
  if (parameters.epochs !== null) requested['epochs'] = parameters.epochs;
  if (parameters.learningRate !== null) requested['learning_rate'] = parameters.learningRate;
  if (parameters.batchSize !== null) requested['batch_size'] = parameters.batchSize;
  return requested;
}

/**
 * The complete configuration of a run: the message's parameters win over the configured defaults, these over the table's.
 *
 * @param parameters - what the job message set
 * @param defaults - what the service's configuration (or `--config`) sets
 * @param context - number of pictures and the device's precision
 * @throws InvalidRequestError when a requested parameter is out of range
 */
export function trainingConfigFor(
  parameters: RequestedParameters,
  defaults: PartialTrainingConfig,
  context: TrainingConfigContext,
): TrainingConfig {
  const table: Record<string, unknown> = {};
  for (const key of Object.values(TRAINING_CONFIG_KEYS)) table[key.field] = key.default;
  table['epochs'] = defaultEpochs(context.imageCount);
  table['mixedPrecision'] = context.mixedPrecisionDefault;
  // Every field of TrainingConfig has a row in the table, so the spread is complete.
  return {
    ...(table as unknown as TrainingConfig),
    ...defaults,
    ...parseTrainingConfig(requestedTrainingConfig(parameters), 'The job message'),
  };
}

/**
 * A configuration in the words of its file, e.g. for a checkpoint's manifest or `--config` of a rerun.
 *
 * @param config - a complete configuration
 * @returns an object that {@link parseTrainingConfig} reads back to the same values
 */
export function trainingConfigJson(config: TrainingConfig): Record<string, number | string | boolean | null> {
  return Object.fromEntries(Object.entries(TRAINING_CONFIG_KEYS).map(([name, key]) => [name, config[key.field]]));
}
