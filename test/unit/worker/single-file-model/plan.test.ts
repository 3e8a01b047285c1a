import assert from 'node:assert/strict';
import { ModelLoadFailedError } from '../../../../common/errors.ts';
import type { SafetensorsHeader } from '../../../../worker/single-file-model/header.ts';
import { planConversion } from '../../../../worker/single-file-model/plan.ts';
import { goldenKeys, goldenModels, singleFileShape } from '../../../support/single-file.ts';

const NOTHING_BESIDE = { configs: new Map(), tokenizer: new Map() };
const { sd15, small } = goldenModels();

type Shapes = Record<string, number[]>;

function headerOf(shapes: Shapes): SafetensorsHeader {
  const entries = Object.entries(shapes).map(([name, shape], index) => {
    return [name, { dtype: 'F16', shape, beginBytes: index, endBytes: index }] as const;
  });
  return { tensors: new Map(entries), metadata: new Map() };
}

const whole: Shapes = Object.fromEntries(
  (['unet', 'vae', 'text_encoder'] as const).flatMap((part) =>
    goldenKeys(sd15, part).map(([ldm, , shape]) => [ldm, singleFileShape(ldm, shape)]),
  ),
);
const only = (...prefixes: string[]): Shapes =>
  Object.fromEntries(Object.entries(whole).filter(([name]) => prefixes.some((prefix) => name.startsWith(prefix))));
const renamed = (shapes: Shapes, from: string, to: string): Shapes =>
  Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [name.replace(from, to), shape]));

const [UNET, VAE, TEXT] = ['model.diffusion_model.', 'first_stage_model.', 'cond_stage_model.'];
const FIRST = `${UNET}input_blocks.0.0.weight`;
const PROJECTION = `${UNET}middle_block.1.proj_in.weight`;
const TEXT_KEYS = `${UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight`;

/** Heads of files that are no Stable Diffusion 1.x, with the words that name them. */
const OTHERS: readonly (readonly [what: string, shapes: Shapes, words: RegExp])[] = [
  ['LoRA of kohya', { 'lora_te_text_model_encoder_layers_0_mlp_fc1.alpha': [] }, /is a LoRA .*: name the base model/],
  ['LoRA of diffusers', { 'unet.down_blocks.0.attentions.0.to_k.lora_A.weight': [4, 4] }, /is a LoRA/],
  ['LoRA of PEFT', { 'base_model.model.mid_block.to_q.lora_B.weight': [4, 4] }, /is a LoRA/],
  ['LyCORIS', { 'lycoris_mid_block.hada_w1_a': [4, 4] }, /is a LoRA/],
  ['embedding', { emb_params: [4, 768] }, /is an embedding/],
  ['ControlNet', { 'control_model.zero_convs.0.0.weight': [4] }, /is a ControlNet/],
  ['IP-Adapter', { 'image_proj.proj.weight': [4] }, /is an IP-Adapter/],
  ['motion module', { 'down_blocks.0.motion_modules.0.temporal_transformer.norm.bias': [4] }, /is a model for video/],
  ['SDXL', { ...only(UNET), 'conditioner.embedders.1.model.ln_final.weight': [1280] }, /is a Stable Diffusion XL/],
  ['unet of SDXL', { ...only(UNET), [`${UNET}label_emb.0.0.weight`]: [4, 4] }, /is a Stable Diffusion XL/],
  ['SD 3', { 'model.diffusion_model.joint_blocks.0.x_block.mlp.fc1.weight': [4] }, /is a Stable Diffusion 3/],
  ['Flux', { 'double_blocks.0.img_attn.norm.key_norm.scale': [4] }, /is a Flux/],
  ['AuraFlow', { 'model.double_layers.0.x': [4], 'double_layers.0.attn.w1q.weight': [4] }, /is an AuraFlow/],
  ['Stable Cascade', { 'clip_txt_mapper.weight': [2048, 4] }, /is a Stable Cascade/],
  ['SD 2', { ...only(UNET, VAE), 'cond_stage_model.model.ln_final.weight': [1024] }, /is a Stable Diffusion 2/],
  ['unet of SD 2', { ...whole, [TEXT_KEYS]: [1280, 1024] }, /is a Stable Diffusion 2/],
  ['linear projections', { ...whole, [PROJECTION]: [1280, 1280] }, /is a Stable Diffusion 2/],
  ['AltDiffusion', { ...only(UNET, VAE), 'cond_stage_model.roberta.x': [4] }, /is an AltDiffusion/],
  [
    'in-painting',
    { ...whole, [FIRST]: [320, 9, 3, 3] },
    /is for in-painting \(.* 9 channels instead of 4\): take the plain/,
  ],
  ['InstructPix2Pix', { ...whole, [FIRST]: [320, 8, 3, 3] }, /InstructPix2Pix: its unet takes 8 channels/],
  ['upscaler', { ...whole, [FIRST]: [320, 7, 3, 3] }, /enlarging pictures .*7 channels/],
  ['5 channels', { ...whole, [FIRST]: [320, 5, 3, 3] }, /other than 4 channels/],
  [
    'unet of diffusers',
    { 'conv_in.weight': [320, 4, 3, 3], 'down_blocks.0.x': [1] },
    /is the unet of a diffusers model alone/,
  ],
  ['VAE', only(VAE), /is a VAE alone/],
  ['VAE without prefix', renamed(only(VAE), VAE, ''), /is a VAE alone/],
  ['text encoder', renamed(only(TEXT), 'cond_stage_model.transformer.', ''), /is a text encoder alone/],
  ['unet', only(UNET), /is a unet alone/],
  ['unet without prefix', renamed(only(UNET), UNET, ''), /is a unet alone/],
  ['no text encoder', only(UNET, VAE), /is without a text encoder/],
  ['no VAE', only(UNET, TEXT), /is without a VAE: take a version with the VAE baked in/],
  [
    'something',
    { 'a.b': [1], c: [2], d: [3], e: [4] },
    /of a kind that is not known here \(4 tensors, such as a\.b, c, d\)/,
  ],
];

describe('planConversion', () => {
  it('reads a Stable Diffusion 1.5 by itself', () => {
    const plan = planConversion(headerOf(whole), NOTHING_BESIDE, 'style');
    assert.deepEqual([plan.isGuessed, plan.leftOut, plan.vocabularySize], [false, [], 49_408]);
    // https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5/blob/451f4fe16113bff5a5d2269ed5ad43b0592e9a14
    assert.deepEqual(plan.configs.get('unet/config.json'), {
      _class_name: 'UNet2DConditionModel',
      act_fn: 'silu',
      attention_head_dim: 8,
      block_out_channels: [320, 640, 1280, 1280],
      center_input_sample: false,
      cross_attention_dim: 768,
      down_block_types: ['CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'CrossAttnDownBlock2D', 'DownBlock2D'],
      downsample_padding: 1,
      flip_sin_to_cos: true,
      freq_shift: 0,
      in_channels: 4,
      layers_per_block: 2,
      mid_block_scale_factor: 1,
      norm_eps: 1e-5,
      norm_num_groups: 32,
      out_channels: 4,
      sample_size: 64,
      up_block_types: ['UpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D', 'CrossAttnUpBlock2D'],
    });
    assert.deepEqual(plan.configs.get('vae/config.json'), {
      _class_name: 'AutoencoderKL',
      act_fn: 'silu',
      block_out_channels: [128, 256, 512, 512],
      down_block_types: Array.from({ length: 4 }, () => 'DownEncoderBlock2D'),
      in_channels: 3,
      latent_channels: 4,
      layers_per_block: 2,
      norm_num_groups: 32,
      out_channels: 3,
      sample_size: 512,
      scaling_factor: 0.18215,
      up_block_types: Array.from({ length: 4 }, () => 'UpDecoderBlock2D'),
    });
    const text = plan.configs.get('text_encoder/config.json') as Record<string, unknown>;
    const keys = ['hidden_size', 'intermediate_size', 'num_attention_heads', 'num_hidden_layers', 'projection_dim'];
    assert.deepEqual(
      keys.map((key) => text[key]),
      [768, 3072, 12, 12, 768],
    );
    assert.deepEqual([text['vocab_size'], text['max_position_embeddings'], text['layer_norm_eps']], [49_408, 77, 1e-5]);
  });

  it('says that it guesses where other sizes divide as those of Stable Diffusion 1.x do', () => {
    const shapes = Object.fromEntries(
      (['unet', 'vae', 'text_encoder'] as const).flatMap((part) =>
        goldenKeys(part === 'vae' ? sd15 : small, part).map(([ldm, , shape]) => [ldm, singleFileShape(ldm, shape)]),
      ),
    );
    assert.equal(planConversion(headerOf(shapes), NOTHING_BESIDE, 'style').isGuessed, true);
    const configs = new Map([['unet/config.json' as const, { attention_head_dim: 2 }]]);
    assert.equal(planConversion(headerOf(shapes), { ...NOTHING_BESIDE, configs }, 'style').isGuessed, false);
  });

  for (const [what, shapes, words] of OTHERS) {
    it(`refuses, by its name: ${what}`, () => {
      assert.throws(
        () => planConversion(headerOf(shapes), NOTHING_BESIDE, 'style'),
        (error) => {
          assert.ok(error instanceof ModelLoadFailedError);
          assert.match(error.message, words);
          assert.match(error.message, /^The base model style is .*\. Brushwork trains Stable Diffusion 1\.x/);
          assert.ok(!error.message.includes('\n'));
          return true;
        },
      );
    });
  }
});
