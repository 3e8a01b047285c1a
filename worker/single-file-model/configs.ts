/** Sizes of a UNet, by the names of diffusers' `unet/config.json`: all that its weights show. */
export interface UnetSizes {
  in_channels: number;
  out_channels: number;
  block_out_channels: readonly number[];
  down_block_types: readonly string[];
  up_block_types: readonly string[];
  layers_per_block: number;
  cross_attention_dim: number;
}

/** Sizes of a VAE, by the names of diffusers' `vae/config.json`. */
export interface VaeSizes {
  in_channels: number;
  out_channels: number;
  latent_channels: number;
  block_out_channels: readonly number[];
  down_block_types: readonly string[];
  up_block_types: readonly string[];
  layers_per_block: number;
}

/** Sizes of a text encoder, by the names of transformers' `text_encoder/config.json`. */
export interface TextSizes {
  vocab_size: number;
  hidden_size: number;
  intermediate_size: number;
  num_hidden_layers: number;
  max_position_embeddings: number;
}

/** A block with text attention on the way down. */
export const DOWN_WITH_ATTENTION = 'CrossAttnDownBlock2D';

/** A block with text attention on the way up. */
export const UP_WITH_ATTENTION = 'CrossAttnUpBlock2D';

// What follows is what weights do not show: it is in no tensor's shape. Every Stable Diffusion 1.x has the same. Sources:
// https://github.com/CompVis/stable-diffusion/blob/21f890f9da3cfbeaba8e2ac3c425ee9e998d5229/configs/stable-diffusion/v1-inference.yaml
// and, in the words of diffusers, the config.json files of
// https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5 (commit 451f4fe16113bff5a5d2269ed5ad43b0592e9a14).

/** The UNet's settings that do not follow from its weights. `attention_head_dim` is the number of heads (`num_heads: 8`). */
export const UNET_SETTINGS = {
  _class_name: 'UNet2DConditionModel',
  act_fn: 'silu',
  attention_head_dim: 8,
  center_input_sample: false,
  downsample_padding: 1,
  flip_sin_to_cos: true,
  freq_shift: 0,
  mid_block_scale_factor: 1,
  norm_eps: 1e-5,
  norm_num_groups: 32,
  sample_size: 64,
} as const;

/** The VAE's settings that do not follow from its weights (`scale_factor: 0.18215`). */
export const VAE_SETTINGS = {
  _class_name: 'AutoencoderKL',
  act_fn: 'silu',
  norm_num_groups: 32,
  sample_size: 512,
  scaling_factor: 0.18215,
} as const;

/** The text encoder's settings that do not follow from its weights. */
export const TEXT_SETTINGS = {
  architectures: ['CLIPTextModel'],
  bos_token_id: 0,
  eos_token_id: 2,
  hidden_act: 'quick_gelu',
  layer_norm_eps: 1e-5,
  model_type: 'clip_text_model',
  pad_token_id: 1,
} as const;

/**
 * Width of a head of CLIP's text encoder, whatever its size: `transformer_heads = transformer_width // 64` in
 * https://github.com/openai/CLIP/blob/a1d071733d7111c9c014f024669f959182114e33/clip/model.py (`build_model`).
 */
export const TEXT_HEAD_WIDTH = 64;

/** The noise (`linear_start`, `linear_end`, `timesteps`), as PNDM's configuration of Stable Diffusion 1.5 has it. */
export const SCHEDULER_SETTINGS = {
  _class_name: 'PNDMScheduler',
  beta_end: 0.012,
  beta_schedule: 'scaled_linear',
  beta_start: 0.00085,
  clip_sample: false,
  num_train_timesteps: 1000,
  set_alpha_to_one: false,
  skip_prk_steps: true,
  steps_offset: 1,
} as const;

/** `model_index.json`: the parts and their classes. */
export const MODEL_INDEX = {
  _class_name: 'StableDiffusionPipeline',
  feature_extractor: [null, null],
  requires_safety_checker: false,
  safety_checker: [null, null],
  scheduler: ['diffusers', 'PNDMScheduler'],
  text_encoder: ['transformers', 'CLIPTextModel'],
  tokenizer: ['transformers', 'CLIPTokenizer'],
  unet: ['diffusers', 'UNet2DConditionModel'],
  vae: ['diffusers', 'AutoencoderKL'],
} as const;

/** Widths of Stable Diffusion 1.x: a model that has others may differ in what its weights do not show as well. */
export const KNOWN_WIDTHS = {
  unet: [320, 640, 1280, 1280],
  vae: [128, 256, 512, 512],
  text: 768,
} as const;
