import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/** `model_index.json` of a Stable Diffusion 1.x model. */
export const STABLE_DIFFUSION_INDEX = {
  _class_name: 'StableDiffusionPipeline',
  unet: ['diffusers', 'UNet2DConditionModel'],
  vae: ['diffusers', 'AutoencoderKL'],
  text_encoder: ['transformers', 'CLIPTextModel'],
  tokenizer: ['transformers', 'CLIPTokenizer'],
  scheduler: ['diffusers', 'PNDMScheduler'],
  safety_checker: ['stable_diffusion', 'StableDiffusionSafetyChecker'],
};

/** What a repository of such a model holds, by path: right in name and place, with bytes that are no weights. */
export function modelFiles(): Record<string, Buffer> {
  const bytes = (fill: number, length: number) => Buffer.alloc(length, `weights ${fill} `);
  return {
    'README.md': Buffer.from('# A model\n'),
    'model_index.json': Buffer.from(JSON.stringify(STABLE_DIFFUSION_INDEX)),
    'v1-5-pruned.safetensors': bytes(0, 5000),
    'scheduler/scheduler_config.json': Buffer.from('{"num_train_timesteps": 1000}'),
    'unet/config.json': Buffer.from('{"in_channels": 4}'),
    'unet/diffusion_pytorch_model.safetensors': bytes(1, 400_000),
    'unet/diffusion_pytorch_model.fp16.safetensors': bytes(2, 200_000),
    'unet/diffusion_pytorch_model.bin': bytes(3, 400_000),
    'vae/config.json': Buffer.from('{"latent_channels": 4}'),
    'vae/diffusion_pytorch_model.fp16.safetensors': bytes(4, 90_000),
    'text_encoder/config.json': Buffer.from('{"hidden_size": 768}'),
    'text_encoder/model.safetensors': bytes(5, 150_000),
    'tokenizer/vocab.json': Buffer.from('{"a": 0}'),
    'tokenizer/merges.txt': Buffer.from('#version: 0.2\n'),
    'tokenizer/tokenizer_config.json': Buffer.from('{}'),
    'safety_checker/config.json': Buffer.from('{}'),
    'safety_checker/model.safetensors': bytes(6, 300_000),
  };
}

/** What training reads of {@link modelFiles}. */
export const NEEDED_FILES = [
  'model_index.json',
  'scheduler/scheduler_config.json',
  'text_encoder/config.json',
  'text_encoder/model.safetensors',
  'tokenizer/merges.txt',
  'tokenizer/tokenizer_config.json',
  'tokenizer/vocab.json',
  'unet/config.json',
  'unet/diffusion_pytorch_model.safetensors',
  'vae/config.json',
  'vae/diffusion_pytorch_model.fp16.safetensors',
];

/** Writes files below a directory. */
export function writeFiles(directory: string, files: Record<string, Buffer>): void {
  for (const [name, bytes] of Object.entries(files)) {
    const file = path.join(directory, name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, bytes);
  }
}
