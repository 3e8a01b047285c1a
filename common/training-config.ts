import { InvalidRequestError, TooFewImagesError } from './errors.ts';
import { nearest } from './nearest.ts';
import { shown } from './shown.ts';
import { TRAINING_CONFIG_KEYS } from './training-config-keys.ts';
import type { TrainingConfigKey } from './training-config-keys.ts';
import type { MixedPrecision, OptimizerName, RequestedParameters, TrainingConfig } from './types.ts';

/** What a learning rate that nobody sets becomes: each optimizer has its own scale. */
const DEFAULT_LEARNING_RATES: Readonly<Record<OptimizerName, number>> = { adamw: 1e-4, lion: 3e-5, prodigy: 1 };

/** Values from a configuration file; what it does not set is absent. */
export type PartialTrainingConfig = Partial<TrainingConfig>;

/** What a configuration can't know by itself. */
export interface TrainingConfigContext {
  imageCount: number;
  /** What this device does best, see `TrainerRuntime`. */
  mixedPrecisionDefault: MixedPrecision;
}

function faultOf(name: string, key: TrainingConfigKey, value: unknown): string | null {
  const show = shown(value);
  if (value === null && key.nullable) return null;
  if (key.kind === 'choice') {
    const choices = key.choices.map((name) => JSON.stringify(name));
    if (typeof value === 'string' && key.choices.includes(value)) return null;
    return `${name} must be ${choices.slice(0, -1).join(', ')} or ${choices.at(-1)}, but is ${show}`;
  }
  if (key.kind === 'text') return textFaultOf(name, key, value);
  if (key.kind === 'switch') return typeof value === 'boolean' ? null : `${name} must be true or false, but is ${show}`;
  const kind = key.kind === 'integer' ? 'a whole number' : 'a number';
  const range = `${kind} from ${key.min} to ${key.max}${key.nullable ? ', or null' : ''}`;
  if (typeof value !== 'number' || !(value >= key.min && value <= key.max))
    return `${name} must be ${range}, but is ${show}`;
  if (key.kind === 'integer' && !Number.isInteger(value)) return `${name} must be ${range}, but is ${show}`;
  if (key.multipleOf > 0 && value % key.multipleOf !== 0)
    return `${name} must be a multiple of ${key.multipleOf}, but is ${show}`;
  return null;
}

function textFaultOf(name: string, { min, max, nullable }: TrainingConfigKey, value: unknown): string | null {
  const isText = typeof value === 'string' && value === value.trim() && !/\p{Cc}/u.test(value);
  if (isText && value.length >= min && value.length <= max) return null;
  const rule = `a text of ${min} to ${max} characters in one line, with no space at its ends${nullable ? ', or null' : ''}`;
  return `${name} must be ${rule}, but is ${shown(value)}`;
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
 * @param imageCount - pictures to train on, at least 1
 * @param repeats - how often each comes in an epoch
 */
export function defaultEpochs(imageCount: number, repeats = 1): number {
  return Math.min(500, Math.max(100, Math.round(4000 / (imageCount * repeats) / 10) * 10));
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
 * @throws InvalidRequestError when a requested parameter is out of range, or when two do not go together
 * @throws TooFewImagesError when validation would take more pictures than it leaves
 */
export function trainingConfigFor(
  parameters: RequestedParameters,
  defaults: PartialTrainingConfig,
  context: TrainingConfigContext,
): TrainingConfig {
  const given = { ...defaults, ...parseTrainingConfig(requestedTrainingConfig(parameters), 'The job message') };
  const table = tableDefaults();
  checkTogether({ ...table, ...given }, context.imageCount);
  return {
    ...table,
    epochs: defaultEpochs(context.imageCount - (given.validationPictures ?? 0), given.repeats),
    mixedPrecision: context.mixedPrecisionDefault,
    learningRate: DEFAULT_LEARNING_RATES[given.optimizer ?? table.optimizer],
    ...given,
  };
}

/**
 * Pictures of one epoch: those that are not held out, each as often as it is repeated.
 *
 * @param imageCount - pictures of the job
 * @param config - of the run
 */
export function picturesPerEpoch(
  imageCount: number,
  { validationPictures, repeats }: Pick<TrainingConfig, 'validationPictures' | 'repeats'>,
): number {
  return (imageCount - validationPictures) * repeats;
}

/**
 * What of a configuration does not go together: an early stop without validation, or a learning rate of a text encoder
 * that is not trained, or with an optimizer that finds one for all.
 *
 * @param config - complete, or what a file sets
 * @returns a phrase, or null
 */
export function contradictionIn({
  validationPictures = 0,
  earlyStopPatience = null,
  optimizer,
  trainTextEncoder = false,
  textEncoderLearningRate = null,
}: PartialTrainingConfig): string | null {
  if (earlyStopPatience !== null && validationPictures === 0) {
    return (
      `early_stop_patience is ${earlyStopPatience}, but validation_pictures is 0, and the losses of training itself go up ` +
      'and down by chance: set validation_pictures, or early_stop_patience to null'
    );
  }
  if (textEncoderLearningRate !== null && !trainTextEncoder) {
    return (
      `text_encoder_learning_rate is ${textEncoderLearningRate}, but train_text_encoder is false, so nothing would learn at ` +
      'it: set train_text_encoder to true, or text_encoder_learning_rate to null'
    );
  }
  if (textEncoderLearningRate !== null && optimizer === 'prodigy') {
    return (
      `text_encoder_learning_rate is ${textEncoderLearningRate}, but prodigy finds one learning rate for all: set it to ` +
      'null, or take another optimizer'
    );
  }
  return null;
}

/**
 * Whether a base model can be trained on pictures of the configured size. Buckets have sizes of their own.
 *
 * @param config - of the run
 * @param model - the base model: its name, and what sides must be multiples of
 * @throws InvalidRequestError when it can't
 */
export function checkResolution(
  { resolutionPx, resizeMode }: Pick<TrainingConfig, 'resolutionPx' | 'resizeMode'>,
  { name, sideMultiplePx }: { name: string; sideMultiplePx: number },
): void {
  if (resizeMode === 'bucket' || resolutionPx % sideMultiplePx === 0) return;
  const below = Math.max(1, Math.floor(resolutionPx / sideMultiplePx)) * sideMultiplePx;
  throw new InvalidRequestError(
    `resolution is ${resolutionPx}, but pictures for ${name} need sides that are multiples of ${sideMultiplePx} px: ` +
      `set it to ${below}, for example.`,
  );
}

function checkTogether(config: TrainingConfig, imageCount: number): void {
  const fault = contradictionIn(config);
  if (fault !== null) throw new InvalidRequestError(`The training configuration can't be used: ${fault}.`);
  const { validationPictures } = config;
  const mostHeldOut = Math.floor(imageCount / 2);
  if (validationPictures <= mostHeldOut) return;
  throw new TooFewImagesError(
    `validation_pictures is ${validationPictures} of ${imageCount} pictures, which leaves more out than in: set it to ` +
      `${mostHeldOut} or less, or add pictures.`,
  );
}

/**
 * The configuration of a job that an older version froze: what that version did not know is off, as it was then.
 *
 * @param config - all of it, or without keys that came later
 */
export function completeTrainingConfig(config: TrainingConfig): TrainingConfig {
  return { ...tableDefaults(), ...config };
}

function tableDefaults(): TrainingConfig {
  // Every field has a row in the table. Where null means "decided at run time", the caller decides.
  return Object.fromEntries(
    Object.values(TRAINING_CONFIG_KEYS).map((key) => [key.field, key.default]),
  ) as unknown as TrainingConfig;
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
