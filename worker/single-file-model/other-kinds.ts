import { ModelLoadFailedError } from '../../common/errors.ts';
import { WANTED } from '../model-files.ts';
import type { SafetensorsHeader } from './header.ts';
import { TEXT_PREFIX } from './text-keys.ts';
import { UNET_PREFIX } from './unet-keys.ts';
import { VAE_PREFIX } from './vae-keys.ts';

/** The names of a file's tensors, as the rules below ask for them. */
class Names {
  readonly #header: SafetensorsHeader;

  constructor(header: SafetensorsHeader) {
    this.#header = header;
  }

  get all(): string[] {
    return [...this.#header.tensors.keys()];
  }

  /** Whether a name begins with one of these. */
  begin(...prefixes: string[]): boolean {
    return this.all.some((name) => prefixes.some((prefix) => name.startsWith(prefix)));
  }

  match(pattern: RegExp): boolean {
    return this.all.some((name) => pattern.test(name));
  }

  shape(name: string): readonly number[] | undefined {
    return this.#header.tensors.get(name)?.shape;
  }

  /** Whether a tensor of the UNet, or of a UNet alone, begins with one of these. */
  inUnet(...prefixes: string[]): boolean {
    return this.begin(...prefixes, ...prefixes.map((prefix) => `${UNET_PREFIX}.${prefix}`));
  }
}

/** A kind of file that is no Stable Diffusion 1.x, and what to do about it. */
interface OtherKind {
  what: string;
  remedy: string;
  isIt: (names: Names) => boolean;
}

const OTHER_BASE = 'name a Stable Diffusion 1.x';
const NO_BASE = 'name the base model that it belongs to';
const PLAIN = 'take the plain one';
const WHOLE = 'take a file that holds UNet, VAE and text encoder, or name the directory of the diffusers model';

const unetInputs = (names: Names) => names.shape(`${UNET_PREFIX}.input_blocks.0.0.weight`)?.[1];
const contextWidth = (names: Names) =>
  names.shape(`${UNET_PREFIX}.middle_block.1.transformer_blocks.0.attn2.to_k.weight`)?.[1];
const projectionSides = (names: Names) => names.shape(`${UNET_PREFIX}.middle_block.1.proj_in.weight`)?.length;

/** Width of OpenCLIP's text states, which Stable Diffusion 2 reads. */
const SD2_CONTEXT_WIDTH = 1024;

/**
 * First match counts. Most names are those by which diffusers tells kinds apart
 * (https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/loaders/single_file_utils.py, CHECKPOINT_KEY_NAMES).
 */
const OTHER_KINDS: readonly OtherKind[] = [
  {
    what: 'a LoRA or a similar set of changes to a model, not a model',
    remedy: NO_BASE,
    isIt: (names) =>
      names.match(/^lora_(unet|te)|\.lora(_[AB]|_up|_down|\.up|\.down)\.|\.(hada_w1|lokr_w1|oft_blocks)/),
  },
  {
    what: 'an embedding (textual inversion), not a model',
    remedy: NO_BASE,
    isIt: (names) => names.begin('emb_params', 'string_to_param'),
  },
  {
    what: 'a ControlNet',
    remedy: NO_BASE,
    isIt: (names) => names.begin('control_model.', 'controlnet_cond_embedding.', 'input_hint_block.', 'zero_convs.'),
  },
  { what: 'an IP-Adapter', remedy: NO_BASE, isIt: (names) => names.begin('image_proj.', 'ip_adapter.') },
  {
    what: 'a model for video, or a part of one',
    remedy: OTHER_BASE,
    isIt: (names) => names.match(/motion_modules\.|\.time_stack\.|\.time_mixer\./),
  },
  {
    what: 'a Stable Diffusion XL',
    remedy: OTHER_BASE,
    isIt: (names) => names.begin('conditioner.embedders.') || names.inUnet('label_emb.'),
  },
  { what: 'a Stable Diffusion 3', remedy: OTHER_BASE, isIt: (names) => names.inUnet('joint_blocks.') },
  {
    what: 'a Flux or a model built like it',
    remedy: OTHER_BASE,
    isIt: (names) => names.inUnet('double_blocks.', 'single_blocks.', 'distilled_guidance_layer.'),
  },
  { what: 'an AuraFlow', remedy: OTHER_BASE, isIt: (names) => names.inUnet('double_layers.') },
  {
    what: 'a Stable Cascade',
    remedy: OTHER_BASE,
    isIt: (names) => names.begin('clip_txt_mapper.', 'down_blocks.1.0.channelwise.'),
  },
  {
    what: 'a Stable Diffusion 2',
    remedy: OTHER_BASE,
    isIt: (names) =>
      names.begin('cond_stage_model.model.') ||
      contextWidth(names) === SD2_CONTEXT_WIDTH ||
      projectionSides(names) === 2,
  },
  { what: 'an AltDiffusion', remedy: OTHER_BASE, isIt: (names) => names.begin('cond_stage_model.roberta.') },
  {
    what: 'for in-painting (its unet takes 9 channels instead of 4)',
    remedy: PLAIN,
    isIt: (names) => unetInputs(names) === 9,
  },
  {
    what: 'for editing by instructions (InstructPix2Pix: its unet takes 8 channels instead of 4)',
    remedy: PLAIN,
    isIt: (names) => unetInputs(names) === 8,
  },
  {
    what: 'for enlarging pictures (its unet takes 7 channels instead of 4)',
    remedy: PLAIN,
    isIt: (names) => unetInputs(names) === 7,
  },
  {
    what: 'of another kind, whose unet takes other than 4 channels',
    remedy: PLAIN,
    isIt: (names) => (unetInputs(names) ?? 4) !== 4,
  },
  {
    what: 'the unet of a diffusers model alone',
    remedy: WHOLE,
    isIt: (names) => names.begin('down_blocks.') && names.begin('conv_in.'),
  },
  {
    what: 'a VAE alone',
    remedy: WHOLE,
    isIt: (names) =>
      !names.begin(UNET_PREFIX) &&
      names.begin('encoder.down', 'decoder.up', 'first_stage_model.encoder.', 'first_stage_model.decoder.'),
  },
  {
    what: 'a text encoder alone',
    remedy: WHOLE,
    isIt: (names) => !names.begin(UNET_PREFIX) && names.match(/(^|\.)(token_embedding\.weight|text_model\.)/),
  },
  {
    what: 'a unet alone, without VAE and text encoder',
    remedy: WHOLE,
    isIt: (names) => names.inUnet('input_blocks.') && !names.begin(`${VAE_PREFIX}.`, `${TEXT_PREFIX}.`),
  },
  {
    what: 'without a text encoder that Stable Diffusion 1.x has',
    remedy: WHOLE,
    isIt: (names) => names.inUnet('input_blocks.') && !names.begin(`${TEXT_PREFIX}.`),
  },
  {
    what: 'without a VAE',
    remedy: 'take a version with the VAE baked in',
    isIt: (names) => names.inUnet('input_blocks.') && !names.begin(`${VAE_PREFIX}.`),
  },
];

/** Names shown of a file that nobody knows. */
const SHOWN_NAMES = 3;

/**
 * Refuses what is no Stable Diffusion 1.x by the names and shapes in a file's head.
 *
 * @param header - of the file
 * @param name - how the model is called in errors
 * @throws ModelLoadFailedError naming what it is and what to do
 */
export function refuseOtherKinds(header: SafetensorsHeader, name: string): void {
  const names = new Names(header);
  const kind = OTHER_KINDS.find(({ isIt }) => isIt(names));
  if (kind !== undefined) {
    throw new ModelLoadFailedError(`The base model ${name} is ${kind.what}: ${kind.remedy}. ${WANTED}`);
  }
  if (names.begin(`${UNET_PREFIX}.input_blocks.`)) return;
  const { all } = names;
  const shown = all.slice(0, SHOWN_NAMES).join(', ');
  throw new ModelLoadFailedError(
    `The base model ${name} is of a kind that is not known here (${all.length} tensors, such as ${shown}): ${OTHER_BASE}. ${WANTED}`,
  );
}
