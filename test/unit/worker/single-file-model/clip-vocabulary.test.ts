import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { loadTokenizer } from '../../../../native/trainer/tokenizer.ts';
import { CLIP_VOCABULARY_SIZE, clipTokenizerFiles } from '../../../../worker/single-file-model/clip-vocabulary.ts';

const FOLDER = path.join(import.meta.dirname, '../../../../worker/single-file-model/clip-vocabulary');
const TOKEN_COUNT = 77;

/** The hash by which git calls a file. */
function gitBlob(bytes: Buffer): string {
  return createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');
}

describe('tokenizer of CLIP', () => {
  let files: Map<string, Buffer>;
  let vocabulary: Buffer;
  let merges: Buffer;
  before(async () => {
    files = await clipTokenizerFiles();
    vocabulary = files.get('tokenizer/vocab.json') ?? Buffer.of();
    merges = files.get('tokenizer/merges.txt') ?? Buffer.of();
  });

  it('comes from the file that its folder names', () => {
    const bytes = readFileSync(path.join(FOLDER, 'bpe_simple_vocab_16e6.txt.gz'));
    const licence = readFileSync(path.join(FOLDER, 'LICENSES.md'), 'utf8');
    assert.ok(licence.includes(createHash('sha256').update(bytes).digest('hex')));
    assert.ok(licence.includes('Copyright (c) 2021 OpenAI'));
  });

  it('has as many bytes as openai/clip-vit-large-patch14', () => {
    assert.deepEqual([vocabulary.length, merges.length], [961_143, 524_619]);
  });

  // https://github.com/apple/ml-stable-diffusion/tree/e12202c1f6405b83918b58a5d097cd61e3e1f702/swift/StableDiffusionTests/Resources
  // holds copies of both; vocab.json without blanks, merges.txt with more words in its first line.
  it('equals the copies that another project publishes, byte by byte', () => {
    const entries = [
      ...vocabulary
        .toString('utf8')
        .slice(1, -1)
        .matchAll(/("(?:[^"\\]|\\.)*"): (\d+)(?:, |$)/g),
    ];
    const compact = `{${entries.map(([, token, id]) => `${token}:${id}`).join(',')}}`;
    assert.equal(gitBlob(Buffer.from(compact)), '182766ce89b439768edadda342519f33802f5364');
    const firstLine = '#version: 0.2 - Trained by `huggingface/tokenizers`';
    const withComment = merges.toString('utf8').replace('#version: 0.2', firstLine);
    assert.equal(gitBlob(Buffer.from(withComment)), 'bbfec752c9a675946c6dce106def6f35c882dcc2');
  });

  it('has 49408 tokens with the ids of simple_tokenizer.py', () => {
    const ids = JSON.parse(vocabulary.toString('utf8')) as Record<string, number>;
    assert.equal(CLIP_VOCABULARY_SIZE, 49_408);
    assert.equal(Object.keys(ids).length, CLIP_VOCABULARY_SIZE);
    assert.deepEqual(
      Object.values(ids).sort((a, b) => a - b),
      Array.from({ length: CLIP_VOCABULARY_SIZE }, (_, id) => id),
    );
    const some = ['!', 'a</w>', 'in', 'the</w>', '<|startoftext|>', '<|endoftext|>'].map((token) => ids[token]);
    assert.deepEqual(some, [0, 320, 512, 518, 49_406, 49_407]);
  });

  it('gives captions the ids that they are known to have', async () => {
    const directory = mkdtempSync(path.join(tmpdir(), 'brushwork-clip-'));
    try {
      mkdirSync(path.join(directory, 'tokenizer'));
      for (const [name, bytes] of files) writeFileSync(path.join(directory, name), bytes);
      const tokenizer = await loadTokenizer(path.join(directory, 'tokenizer'), TOKEN_COUNT);
      for (const [caption, ids] of [
        ['a photo of a cat', [320, 1125, 539, 320, 2368]],
        ['A photograph of an astronaut riding a horse', [320, 8853, 539, 550, 18376, 6765, 320, 4558]],
        ['', []],
      ] as const) {
        const padding = Array.from({ length: TOKEN_COUNT - 1 - ids.length }, () => 49_407);
        assert.deepEqual([...tokenizer.encode(caption)], [49_406, ...ids, ...padding], caption);
      }
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
