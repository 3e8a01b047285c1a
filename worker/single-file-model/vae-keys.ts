import type { VaeSizes } from './configs.ts';
import { KeyList } from './key-list.ts';
import type { WeightKey } from './key-list.ts';

// Names: https://github.com/CompVis/stable-diffusion/blob/21f890f9da3cfbeaba8e2ac3c425ee9e998d5229/ldm/modules/diffusionmodules/model.py
// (Encoder, Decoder) and ldm/models/autoencoder.py of the same commit; diffusers':
// https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/autoencoders/vae.py. diffusers' converter says
// the same by renaming (loaders/single_file_utils.py, convert_ldm_vae_checkpoint): test/reference/single_file_keys.py
// compares.

/** Prefix of the VAE in a single file. */
export const VAE_PREFIX = 'first_stage_model';

/**
 * All weights of a VAE, under both namings. Those of its attention are 1 x 1 convolutions in LDM and matrices in diffusers.
 *
 * @param sizes - as its configuration names them
 */
export function vaeKeys(sizes: VaeSizes): WeightKey[] {
  const vae = new KeyList(VAE_PREFIX);
  const { latent_channels: latent } = sizes;
  addEncoder(vae.at('encoder', 'encoder'), sizes);
  addDecoder(vae.at('decoder', 'decoder'), sizes);
  vae.conv('quant_conv', 'quant_conv', 2 * latent, 2 * latent, 1);
  vae.conv('post_quant_conv', 'post_quant_conv', latent, latent, 1);
  return vae.keys;
}

function addEncoder(encoder: KeyList, sizes: VaeSizes): void {
  const widths = sizes.block_out_channels;
  let channels = widths[0] ?? 0;
  encoder.conv('conv_in', 'conv_in', channels, sizes.in_channels);
  widths.forEach((width, level) => {
    const [down, block] = [`down.${level}`, `down_blocks.${level}`];
    for (let layer = 0; layer < sizes.layers_per_block; layer++) {
      addResnet(encoder.at(`${down}.block.${layer}`, `${block}.resnets.${layer}`), width, channels);
      channels = width;
    }
    if (level < widths.length - 1)
      encoder.conv(`${down}.downsample.conv`, `${block}.downsamplers.0.conv`, width, width);
  });
  addMiddle(encoder, channels);
  encoder.norm('norm_out', 'conv_norm_out', channels);
  encoder.conv('conv_out', 'conv_out', 2 * sizes.latent_channels, channels);
}

/** LDM numbers the decoder's levels from the picture inwards, diffusers in the order in which they are run. */
function addDecoder(decoder: KeyList, sizes: VaeSizes): void {
  const widths = sizes.block_out_channels;
  let channels = widths.at(-1) ?? 0;
  decoder.conv('conv_in', 'conv_in', channels, sizes.latent_channels);
  addMiddle(decoder, channels);
  [...widths].reverse().forEach((width, level) => {
    const [up, block] = [`up.${widths.length - 1 - level}`, `up_blocks.${level}`];
    for (let layer = 0; layer <= sizes.layers_per_block; layer++) {
      addResnet(decoder.at(`${up}.block.${layer}`, `${block}.resnets.${layer}`), width, channels);
      channels = width;
    }
    if (level < widths.length - 1) decoder.conv(`${up}.upsample.conv`, `${block}.upsamplers.0.conv`, width, width);
  });
  decoder.norm('norm_out', 'conv_norm_out', channels);
  decoder.conv('conv_out', 'conv_out', sizes.out_channels, channels);
}

function addMiddle(part: KeyList, channels: number): void {
  addResnet(part.at('mid.block_1', 'mid_block.resnets.0'), channels, channels);
  const attention = part.at('mid.attn_1', 'mid_block.attentions.0');
  attention.norm('norm', 'group_norm', channels);
  attention.layer('q', 'to_q', [channels, channels]);
  attention.layer('k', 'to_k', [channels, channels]);
  attention.layer('v', 'to_v', [channels, channels]);
  attention.layer('proj_out', 'to_out.0', [channels, channels]);
  addResnet(part.at('mid.block_2', 'mid_block.resnets.1'), channels, channels);
}

function addResnet(at: KeyList, outChannels: number, inChannels: number): void {
  at.norm('norm1', 'norm1', inChannels);
  at.conv('conv1', 'conv1', outChannels, inChannels);
  at.norm('norm2', 'norm2', outChannels);
  at.conv('conv2', 'conv2', outChannels, outChannels);
  if (inChannels !== outChannels) at.conv('nin_shortcut', 'conv_shortcut', outChannels, inChannels, 1);
}
