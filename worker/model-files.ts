import { ModelLoadFailedError } from '../common/errors.ts';
import { PICKLE_REMEDY } from './single-file-model/header.ts';

/** Where a model of diffusers layout keeps the weights of its parts, without the ending. */
const WEIGHT_STEMS = ['unet/diffusion_pytorch_model', 'vae/diffusion_pytorch_model', 'text_encoder/model'];

/** Full precision comes first, as the trainer looks for it. */
const PRECISIONS = ['', '.fp16'];

/** What tells a Stable Diffusion 1.x from later ones and from those for in-painting, whose parts have the same classes. */
export const UNET_CONFIG_FILE = 'unet/config.json';
/** How many resolutions its VAE has. */
export const VAE_CONFIG_FILE = 'vae/config.json';

const CONFIG_FILES = ['scheduler/scheduler_config.json', UNET_CONFIG_FILE, VAE_CONFIG_FILE, 'text_encoder/config.json'];

/** The parts that `model_index.json` must name, with the class that each must have; null: any. */
const PARTS: readonly (readonly [name: string, className: string | null])[] = [
  ['unet', 'UNet2DConditionModel'],
  ['vae', 'AutoencoderKL'],
  ['text_encoder', 'CLIPTextModel'],
  ['tokenizer', null],
  ['scheduler', null],
];

/** Resolutions of UNet and VAE alike, where a configuration leaves them to diffusers' default. */
const SD15_LEVELS = 4;

/** Of a latent picture. */
const LATENT_CHANNELS = 4;

/** Parts that only other kinds of model have. */
const FOREIGN_PARTS = ['text_encoder_2', 'text_encoder_3', 'tokenizer_2', 'transformer', 'prior'];

/** Ends the refusal of a model. */
export const WANTED =
  'Brushwork trains Stable Diffusion 1.x, in diffusers layout or as one .safetensors file, such as stable-diffusion-v1-5.';

/** End of a shard's name, with the number of shards. */
const SHARD = /-\d{5}-of-(\d{5})\.safetensors$/;

/** What says which kind of model a directory holds. */
export const INDEX_FILE = 'model_index.json';

/** What training reads of a model: paths relative to its directory, with forward slashes, sorted. */
export interface ModelFiles {
  /** Small files: what the model is made of. */
  descriptions: string[];
  weights: string[];
}

/**
 * Picks what training reads, and nothing else: safetensors only, of two precisions the full one, no safety checker.
 *
 * @param paths - all files of the model, relative to its directory, with forward slashes
 * @param name - how the model is called in errors
 * @throws ModelLoadFailedError naming everything that is missing
 */
export function selectModelFiles(paths: readonly string[], name: string): ModelFiles {
  const present = new Set(paths);
  const missing = [INDEX_FILE, ...CONFIG_FILES].filter((file) => !present.has(file));
  const weights: string[] = [];
  for (const stem of WEIGHT_STEMS) {
    const found = findWeights(stem, present);
    if (found.length === 0) missing.push(`${stem}.safetensors`);
    weights.push(...found);
  }
  const hasVocabulary = present.has('tokenizer/vocab.json') && present.has('tokenizer/merges.txt');
  const vocabulary = hasVocabulary ? ['tokenizer/vocab.json', 'tokenizer/merges.txt'] : ['tokenizer/tokenizer.json'];
  if (!vocabulary.every((file) => present.has(file))) missing.push('tokenizer/vocab.json', 'tokenizer/merges.txt');
  if (missing.length > 0) throw incomplete(name, missing, present);
  const optional = ['tokenizer/special_tokens_map.json', 'tokenizer/tokenizer_config.json'];
  return {
    descriptions: [INDEX_FILE, ...CONFIG_FILES, ...vocabulary, ...optional.filter((file) => present.has(file))].sort(),
    weights: weights.sort(),
  };
}

/** One file, else all shards of a file; nothing where neither is complete. */
function findWeights(stem: string, present: ReadonlySet<string>): string[] {
  for (const precision of PRECISIONS) {
    const whole = `${stem}${precision}.safetensors`;
    if (present.has(whole)) return [whole];
    const shards = [...present].filter((file) => file.startsWith(`${stem}${precision}-`) && SHARD.test(file)).sort();
    const counts = new Set(shards.map((file) => Number(SHARD.exec(file)?.[1])));
    if (counts.size === 1 && counts.has(shards.length)) return shards;
  }
  return [];
}

function incomplete(name: string, missing: string[], present: ReadonlySet<string>): ModelLoadFailedError {
  const single = [...present].find((file) => !file.includes('/') && /\.(safetensors|ckpt)$/.test(file));
  if (single !== undefined && !present.has(INDEX_FILE)) {
    const remedy = single.endsWith('.ckpt')
      ? 'which may run code when it is loaded and is not read: take a .safetensors version'
      : 'not in diffusers layout: name the file itself';
    return new ModelLoadFailedError(`The base model ${name} is a single file (${single}), ${remedy}. ${WANTED}`);
  }
  const hasOtherWeights = [...present].some((file) => file.endsWith('.bin') && !file.startsWith('safety_checker/'));
  const hint = hasOtherWeights ? ` It has .bin weights, which are PyTorch pickles: ${PICKLE_REMEDY}` : '';
  return new ModelLoadFailedError(`The base model ${name} lacks ${missing.join(', ')}.${hint} ${WANTED}`);
}

/**
 * Refuses models of another kind by what they say of themselves, before any weights are loaded or even fetched.
 *
 * @param indexText - content of `model_index.json`
 * @param name - how the model is called in errors
 * @throws ModelLoadFailedError naming what was found
 */
export function checkModelKind(indexText: string, name: string): void {
  const index = parseObject(indexText, INDEX_FILE, name);
  const kind = typeof index['_class_name'] === 'string' ? index['_class_name'] : 'model without _class_name';
  const foreign = FOREIGN_PARTS.filter((part) => classOf(index, part) !== null);
  const wrong = PARTS.flatMap(([part, wanted]) => {
    const found = classOf(index, part);
    if (found === null) return [`no ${part}`];
    return wanted === null || found === wanted ? [] : [`${part} is a ${found}`];
  });
  const findings = [...wrong, ...foreign.map((part) => `it has a ${part}`)];
  if (findings.length === 0) return;
  throw new ModelLoadFailedError(`The base model ${name} is a ${kind} (${findings.join(', ')}). ${WANTED}`);
}

/**
 * Refuses models that have the classes of Stable Diffusion 1.x but another UNet, before any weights are fetched.
 *
 * @param configText - content of `unet/config.json`
 * @param name - how the model is called in errors
 * @throws ModelLoadFailedError naming what was found
 */
export function checkUnet(configText: string, name: string): void {
  const config = parseObject(configText, UNET_CONFIG_FILE, name);
  if (config['use_linear_projection'] === true) {
    throw new ModelLoadFailedError(
      `The base model ${name} is a Stable Diffusion 2.x (its unet has linear projections). ${WANTED}`,
    );
  }
  const { in_channels: channels = LATENT_CHANNELS } = config;
  if (channels === LATENT_CHANNELS) return;
  throw new ModelLoadFailedError(
    `The base model ${name} is for in-painting or editing (its unet takes ${JSON.stringify(channels)} channels instead of ${LATENT_CHANNELS}): take the plain one. ${WANTED}`,
  );
}

/**
 * What sides of pictures must be multiples of: each level of VAE and UNet but the last halves them.
 *
 * @param unetConfigText - `unet/config.json`
 * @param vaeConfigText - `vae/config.json`
 * @param name - of the model, for the error
 */
export function sideMultiplePx(unetConfigText: string, vaeConfigText: string, name: string): number {
  const levels = [
    parseObject(unetConfigText, UNET_CONFIG_FILE, name),
    parseObject(vaeConfigText, VAE_CONFIG_FILE, name),
  ]
    .map(({ block_out_channels: widths }) => (Array.isArray(widths) ? widths.length : SD15_LEVELS))
    .reduce((sum, count) => sum + count - 1, 0);
  return 2 ** levels;
}

function parseObject(text: string, file: string, name: string): Record<string, unknown> {
  let value: unknown = null;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ModelLoadFailedError(`${file} of the base model ${name} is not valid JSON: fetch it again.`, {
      cause: error,
    });
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new ModelLoadFailedError(`${file} of the base model ${name} is not a JSON object: fetch it again.`);
}

/** The class of a part, or null: `["diffusers", "UNet2DConditionModel"]`, `[null, null]` where it was left out. */
function classOf(index: Record<string, unknown>, part: string): string | null {
  const entry = index[part];
  if (!Array.isArray(entry)) return null;
  const className: unknown = entry[1];
  return typeof className === 'string' ? className : null;
}
