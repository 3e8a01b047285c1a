import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import { byteLetters } from '../../native/trainer/byte-letters.ts';

/** CLIP's own list of merges, more than it uses: see `clip-vocabulary/LICENSES.md`. */
const MERGES_FILE = path.join(import.meta.dirname, 'clip-vocabulary/bpe_simple_vocab_16e6.txt.gz');

/** Tokens of CLIP's vocabulary: each byte inside a word and at its end, the merges, start and end of a text. */
export const CLIP_VOCABULARY_SIZE = 49_408;

const SPECIAL_TOKENS = ['<|startoftext|>', '<|endoftext|>'];

/**
 * CLIP's tokenizer, which every Stable Diffusion 1.x has: built as `SimpleTokenizer` does in
 * https://github.com/openai/CLIP/blob/a1d071733d7111c9c014f024669f959182114e33/clip/simple_tokenizer.py, written as
 * https://huggingface.co/openai/clip-vit-large-patch14 has it.
 *
 * @returns contents of the files of `tokenizer/`, by path
 */
export async function clipTokenizerFiles(): Promise<Map<string, Buffer>> {
  const text = (await promisify(gunzip)(await readFile(MERGES_FILE))).toString('utf8');
  const letters = byteLetters();
  const mergeCount = CLIP_VOCABULARY_SIZE - 2 * letters.length - SPECIAL_TOKENS.length;
  // The first line names the file.
  const merges = text.split('\n').slice(1, 1 + mergeCount);
  const tokens = [
    ...letters,
    ...letters.map((letter) => `${letter}</w>`),
    ...merges.map((merge) => merge.replace(' ', '')),
    ...SPECIAL_TOKENS,
  ];
  // Not by JSON.stringify of an object: it would put tokens that are numbers first.
  const entries = tokens.map((token, id) => `${JSON.stringify(token)}: ${id}`);
  return new Map([
    ['tokenizer/vocab.json', Buffer.from(`{${entries.join(', ')}}`)],
    ['tokenizer/merges.txt', Buffer.from(['#version: 0.2', ...merges, ''].join('\n'))],
  ]);
}
