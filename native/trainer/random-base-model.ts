import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { NativeAddon } from '../native.ts';
import { createRandomModelVocabulary } from './random-vocabulary.ts';

/** Sizes of a random base model: 'tiny' for tests (2 levels), 'small' for the demo (4 levels, as SD 1.5). */
export type RandomBaseModelPreset = 'tiny' | 'small';

/** Tokens a caption is padded and truncated to: CLIP's `max_position_embeddings`. */
const TEXT_TOKEN_COUNT = 77;

/**
 * Writes a base model with Stable Diffusion 1.5's structure and random weights, in diffusers layout with its tokenizer:
 * for demos and tests where nobody can download a real one. Equal arguments write equal bytes.
 *
 * @param addon - the native addon
 * @param directory - receives the model; made when absent
 * @param preset - its size
 * @param seed - of the weights, 0 to 2^53-1
 * @throws class of `common/errors.ts` when the directory can't be written
 */
export async function writeRandomBaseModel(
  addon: NativeAddon,
  directory: string,
  preset: RandomBaseModelPreset,
  seed: number,
): Promise<void> {
  await mkdir(directory, { recursive: true });
  await addon.writeRandomBaseModel({ directory, preset, seed });
  await writeRandomTokenizer(join(directory, 'tokenizer'));
}

/**
 * Writes the `tokenizer/` folder of random base models.
 *
 * @param directory - receives `vocab.json`, `merges.txt`, `special_tokens_map.json`, `tokenizer_config.json`
 */
export async function writeRandomTokenizer(directory: string): Promise<void> {
  const { ids, merges } = createRandomModelVocabulary();
  const start = specialToken('<|startoftext|>');
  const end = specialToken('<|endoftext|>');
  const roles = { bos_token: start, eos_token: end, pad_token: end.content, unk_token: end };
  await mkdir(directory, { recursive: true });
  const files: Record<string, string> = {
    'vocab.json': JSON.stringify(ids),
    'merges.txt': ['#version: 0.2', ...merges, ''].join('\n'),
    'special_tokens_map.json': `${JSON.stringify(roles, null, 2)}\n`,
    'tokenizer_config.json': `${JSON.stringify(tokenizerConfig(roles), null, 2)}\n`,
  };
  for (const [name, content] of Object.entries(files)) await writeFile(join(directory, name), content);
}

function specialToken(content: string): { content: string } & Record<string, boolean | string> {
  return { content, lstrip: false, normalized: true, rstrip: false, single_word: false };
}

function tokenizerConfig(roles: Record<string, unknown>): Record<string, unknown> {
  return {
    add_prefix_space: false,
    ...roles,
    do_lower_case: true,
    errors: 'replace',
    model_max_length: TEXT_TOKEN_COUNT,
    tokenizer_class: 'CLIPTokenizer',
  };
}
