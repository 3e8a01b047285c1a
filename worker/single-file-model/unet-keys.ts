import { DOWN_WITH_ATTENTION, UP_WITH_ATTENTION } from './configs.ts';
import type { UnetSizes } from './configs.ts';
import { KeyList } from './key-list.ts';
import type { WeightKey } from './key-list.ts';

// Names: https://github.com/CompVis/stable-diffusion/blob/21f890f9da3cfbeaba8e2ac3c425ee9e998d5229/ldm/modules/diffusionmodules/openaimodel.py
// and ldm/modules/attention.py of the same commit; diffusers':
// https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/unets/unet_2d_condition.py and
// unet_2d_blocks.py. diffusers' converter says the same by renaming (loaders/single_file_utils.py,
// convert_ldm_unet_checkpoint): test/reference/single_file_keys.py compares.

/** Prefix of the UNet in a single file. */
export const UNET_PREFIX = 'model.diffusion_model';

/**
 * All weights of a UNet, under both namings.
 *
 * @param sizes - as its configuration names them
 */
export function unetKeys(sizes: UnetSizes): WeightKey[] {
  const unet = new KeyList(UNET_PREFIX);
  const widths = sizes.block_out_channels;
  const [first = 0] = widths;
  const last = widths.at(-1) ?? 0;
  unet.layer('time_embed.0', 'time_embedding.linear_1', [4 * first, first]);
  unet.layer('time_embed.2', 'time_embedding.linear_2', [4 * first, 4 * first]);
  addDown(unet, sizes);
  addResnet(unet.at('middle_block.0', 'mid_block.resnets.0'), sizes, last, last);
  addTransformer(unet.at('middle_block.1', 'mid_block.attentions.0'), sizes, last);
  addResnet(unet.at('middle_block.2', 'mid_block.resnets.1'), sizes, last, last);
  addUp(unet, sizes);
  unet.norm('out.0', 'conv_norm_out', first);
  unet.conv('out.2', 'conv_out', sizes.out_channels, first);
  return unet.keys;
}

/** LDM numbers the layers of all levels in one row, with the steps down in between. */
function addDown(unet: KeyList, sizes: UnetSizes): void {
  const widths = sizes.block_out_channels;
  unet.conv('input_blocks.0.0', 'conv_in', widths[0] ?? 0, sizes.in_channels);
  let block = 1;
  let channels = widths[0] ?? 0;
  widths.forEach((width, level) => {
    const down = `down_blocks.${level}`;
    for (let layer = 0; layer < sizes.layers_per_block; layer++, block++) {
      addResnet(unet.at(`input_blocks.${block}.0`, `${down}.resnets.${layer}`), sizes, width, channels);
      channels = width;
      if (sizes.down_block_types[level] !== DOWN_WITH_ATTENTION) continue;
      addTransformer(unet.at(`input_blocks.${block}.1`, `${down}.attentions.${layer}`), sizes, width);
    }
    if (level === widths.length - 1) return;
    unet.conv(`input_blocks.${block++}.0.op`, `${down}.downsamplers.0.conv`, width, width);
  });
}

/** On the way up each layer also gets what a layer on the way down gave; a step up belongs to the layer before it. */
function addUp(unet: KeyList, sizes: UnetSizes): void {
  const widths = sizes.block_out_channels;
  const layers = sizes.layers_per_block + 1;
  let channels = widths.at(-1) ?? 0;
  widths.forEach((_, level) => {
    const mirrored = widths.length - 1 - level;
    const width = widths[mirrored] ?? 0;
    const hasAttention = sizes.up_block_types[level] === UP_WITH_ATTENTION;
    const up = `up_blocks.${level}`;
    for (let layer = 0; layer < layers; layer++) {
      const block = `output_blocks.${level * layers + layer}`;
      const skipped = layer === layers - 1 ? (widths[Math.max(0, mirrored - 1)] ?? 0) : width;
      addResnet(unet.at(`${block}.0`, `${up}.resnets.${layer}`), sizes, width, channels + skipped);
      channels = width;
      if (hasAttention) addTransformer(unet.at(`${block}.1`, `${up}.attentions.${layer}`), sizes, width);
    }
    if (mirrored === 0) return;
    const step = `output_blocks.${level * layers + layers - 1}.${hasAttention ? 2 : 1}`;
    unet.conv(`${step}.conv`, `${up}.upsamplers.0.conv`, width, width);
  });
}

function addResnet(at: KeyList, sizes: UnetSizes, outChannels: number, inChannels: number): void {
  const timeChannels = 4 * (sizes.block_out_channels[0] ?? 0);
  at.norm('in_layers.0', 'norm1', inChannels);
  at.conv('in_layers.2', 'conv1', outChannels, inChannels);
  at.layer('emb_layers.1', 'time_emb_proj', [outChannels, timeChannels]);
  at.norm('out_layers.0', 'norm2', outChannels);
  at.conv('out_layers.3', 'conv2', outChannels, outChannels);
  if (inChannels !== outChannels) at.conv('skip_connection', 'conv_shortcut', outChannels, inChannels, 1);
}

/** Both namings agree inside of a transformer. */
function addTransformer(at: KeyList, sizes: UnetSizes, channels: number): void {
  at.norm('norm', 'norm', channels);
  at.conv('proj_in', 'proj_in', channels, channels, 1);
  const block = at.at('transformer_blocks.0', 'transformer_blocks.0');
  addAttention(block, 'attn1', channels, channels);
  block.layer('ff.net.0.proj', 'ff.net.0.proj', [8 * channels, channels]);
  block.layer('ff.net.2', 'ff.net.2', [channels, 4 * channels]);
  addAttention(block, 'attn2', channels, sizes.cross_attention_dim);
  for (const norm of ['norm1', 'norm2', 'norm3']) block.norm(norm, norm, channels);
  at.conv('proj_out', 'proj_out', channels, channels, 1);
}

function addAttention(block: KeyList, name: string, channels: number, contextChannels: number): void {
  const at = block.at(name, name);
  at.matrix('to_q', 'to_q', [channels, channels]);
  at.matrix('to_k', 'to_k', [channels, contextChannels]);
  at.matrix('to_v', 'to_v', [channels, contextChannels]);
  at.layer('to_out.0', 'to_out.0', [channels, channels]);
}
