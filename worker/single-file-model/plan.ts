import { ModelLoadFailedError } from '../../common/errors.ts';
import { WANTED } from '../model-files.ts';
import {
  KNOWN_WIDTHS,
  MODEL_INDEX,
  SCHEDULER_SETTINGS,
  TEXT_HEAD_WIDTH,
  TEXT_SETTINGS,
  UNET_SETTINGS,
  VAE_SETTINGS,
} from './configs.ts';
import type { SafetensorsHeader } from './header.ts';
import { inferSizes } from './infer-sizes.ts';
import type { ModelSizes } from './infer-sizes.ts';
import { KeyMatcher } from './key-matcher.ts';
import type { PlannedTensor } from './key-matcher.ts';
import { refuseOtherKinds } from './other-kinds.ts';
import type { ConfigFile, SideFiles } from './side-files.ts';
import { textKeys } from './text-keys.ts';
import { unetKeys } from './unet-keys.ts';
import { vaeKeys } from './vae-keys.ts';

/** A directory in diffusers layout that is to be made of a single file. */
export interface ConversionPlan {
  /** Content of the JSON files, by path. */
  configs: ReadonlyMap<string, object>;
  /** Tensors of the weight files, by path. */
  weights: ReadonlyMap<string, readonly PlannedTensor[]>;
  /** Tokens of the text encoder. */
  vocabularySize: number;
  /** Whether heads and groups are taken to be those of Stable Diffusion 1.x though the sizes are not. */
  isGuessed: boolean;
  /** Tensors that are not part of the model. */
  leftOut: readonly string[];
}

/**
 * Decides what a single file becomes, by its head alone.
 *
 * @param header - of the file
 * @param side - what lies beside it
 * @param name - how the model is called in errors
 * @throws ModelLoadFailedError when it is no Stable Diffusion 1.x, or not a whole one
 */
export function planConversion(header: SafetensorsHeader, side: SideFiles, name: string): ConversionPlan {
  refuseOtherKinds(header, name);
  const sizes = inferSizes(header);
  const matcher = new KeyMatcher(header, name);
  const weights = new Map([
    ['unet/diffusion_pytorch_model.safetensors', matcher.match(unetKeys(sizes.unet))],
    ['vae/diffusion_pytorch_model.safetensors', matcher.match(vaeKeys(sizes.vae))],
    ['text_encoder/model.safetensors', matcher.match(textKeys(sizes.text))],
  ]);
  const leftOut = matcher.finish();
  const given = (file: ConfigFile) => side.configs.get(file) ?? {};
  const unet = { ...UNET_SETTINGS, ...given('unet/config.json'), ...sizes.unet };
  const vae = { ...VAE_SETTINGS, ...given('vae/config.json'), ...sizes.vae };
  const text = { ...textSettings(sizes), ...given('text_encoder/config.json'), ...sizes.text };
  checkGiven(
    side,
    { 'unet/config.json': sizes.unet, 'vae/config.json': sizes.vae, 'text_encoder/config.json': sizes.text },
    name,
  );
  checkDivisions(
    [
      ['unet', sizes.unet.block_out_channels, unet.norm_num_groups, 'groups'],
      ['unet', sizes.unet.block_out_channels, unet.attention_head_dim, 'heads'],
      ['vae', sizes.vae.block_out_channels, vae.norm_num_groups, 'groups'],
      ['text encoder', [sizes.text.hidden_size], text.num_attention_heads, 'heads'],
    ],
    name,
  );
  const configs = new Map<string, object>([
    ['model_index.json', MODEL_INDEX],
    ['unet/config.json', unet],
    ['vae/config.json', vae],
    ['text_encoder/config.json', text],
    ['scheduler/scheduler_config.json', { ...schedulerOf(header), ...given('scheduler/scheduler_config.json') }],
  ]);
  const isGuessed = !isKnownSize(sizes) && side.configs.size === 0;
  return { configs, weights, vocabularySize: sizes.text.vocab_size, isGuessed, leftOut };
}

function textSettings({
  text,
}: ModelSizes): typeof TEXT_SETTINGS & Record<'num_attention_heads' | 'projection_dim', number> {
  const width = text.hidden_size;
  return { ...TEXT_SETTINGS, num_attention_heads: Math.floor(width / TEXT_HEAD_WIDTH), projection_dim: width };
}

/**
 * Two marks tell that a model predicts v instead of the noise: the metadata of https://github.com/Stability-AI/ModelSpec
 * (`modelspec.prediction_type`: `v`), and the empty tensor `v_pred` that ComfyUI looks for (comfy/supported_models.py), with
 * `ztsnr` beside it for a schedule that ends in pure noise.
 */
function schedulerOf({ tensors, metadata }: SafetensorsHeader): object {
  const predictsV = tensors.has('v_pred') || metadata.get('modelspec.prediction_type')?.startsWith('v') === true;
  return {
    ...SCHEDULER_SETTINGS,
    prediction_type: predictsV ? 'v_prediction' : 'epsilon',
    ...(tensors.has('ztsnr') ? { rescale_betas_zero_snr: true } : {}),
  };
}

/** A configuration beside the file may add to what the weights show, but not contradict it. */
function checkGiven({ configs }: SideFiles, shown: Partial<Record<ConfigFile, object>>, name: string): void {
  for (const [file, given] of configs) {
    for (const [key, found] of Object.entries(shown[file] ?? {}) as [string, unknown][]) {
      if (!(key in given) || JSON.stringify(given[key]) === JSON.stringify(found)) continue;
      throw new ModelLoadFailedError(
        `The ${file} beside the base model ${name} says ${key} ${JSON.stringify(given[key])}, but its weights have ${JSON.stringify(found)}: it belongs to another model, so take it away or put the file elsewhere.`,
      );
    }
  }
}

/** A part of the model, its widths, and what they are divided into. */
type Division = [part: string, widths: readonly number[], count: unknown, of: string];

/** A model that does not divide as Stable Diffusion 1.x does was built with other numbers, which its weights do not show. */
function checkDivisions(divisions: readonly Division[], name: string): void {
  const uneven = divisions.flatMap(([part, widths, count, of]) => {
    const odd = typeof count === 'number' ? widths.filter((width) => width % count !== 0) : [];
    return odd.length === 0
      ? []
      : [`its ${part} has widths of ${odd.join(', ')}, which are not ${String(count)} ${of}`];
  });
  if (uneven.length === 0) return;
  throw new ModelLoadFailedError(
    `The base model ${name} has other sizes than Stable Diffusion 1.x, and how many heads and groups it has does not show in its weights (${uneven.join('; ')}): put its unet/config.json, vae/config.json and text_encoder/config.json beside the file. ${WANTED}`,
  );
}

function isKnownSize({ unet, vae, text }: ModelSizes): boolean {
  const found = [unet.block_out_channels, vae.block_out_channels, text.hidden_size];
  return JSON.stringify(found) === JSON.stringify([KNOWN_WIDTHS.unet, KNOWN_WIDTHS.vae, KNOWN_WIDTHS.text]);
}
