import assert from 'node:assert/strict';
import { mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ModelLoadFailedError } from '../../../../common/errors.ts';
import { writeRandomTokenizer } from '../../../../native/trainer/random-base-model.ts';
import { loadTokenizer } from '../../../../native/trainer/tokenizer.ts';

const REFERENCE = join(import.meta.dirname, '../../../reference');

interface GoldenCase {
  caption: string;
  ids: number[];
}

describe('tokenizer', () => {
  let directory: string;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'tokenizer-'));
    await writeRandomTokenizer(directory);
  });

  afterEach(() => rm(directory, { recursive: true }));

  it('gives the ids of transformers for every golden caption', async () => {
    const cases = JSON.parse(await readFile(join(REFERENCE, 'tokenizer_golden.json'), 'utf8')) as GoldenCase[];
    const tokenizer = await loadTokenizer(join(REFERENCE, 'tokenizer'), 77);
    assert.ok(cases.length >= 25);
    for (const { caption, ids } of cases) {
      assert.deepEqual([...tokenizer.encode(caption)], ids, `caption ${JSON.stringify(caption)}`);
    }
  });

  it('is written for random base models exactly as the golden ids assume', async () => {
    const names = (await readdir(directory)).sort();
    assert.deepEqual(names, ['merges.txt', 'special_tokens_map.json', 'tokenizer_config.json', 'vocab.json']);
    for (const name of names) {
      const expected = await readFile(join(REFERENCE, 'tokenizer', name), 'utf8');
      assert.equal(await readFile(join(directory, name), 'utf8'), expected, name);
    }
  });

  it('truncates to the length the text encoder has', async () => {
    const tokenizer = await loadTokenizer(directory, 8);
    assert.deepEqual([...tokenizer.encode('sunset '.repeat(20))].slice(-1), [1023]);
    assert.equal(tokenizer.encode('sunset').length, 8);
  });

  it('pads with the token that the tokenizer configuration names', async () => {
    await writeFile(join(directory, 'tokenizer_config.json'), JSON.stringify({ pad_token: '!' }));
    const ids = (await loadTokenizer(directory, 8)).encode('a');
    assert.deepEqual([...ids], [1022, 320, 1023, 0, 0, 0, 0, 0]);
  });

  it('reads the tokenizer.json of newer exports', async () => {
    const definition = JSON.parse(await readFile(join(REFERENCE, 'tokenizer_export.json'), 'utf8')) as object;
    await rm(join(directory, 'vocab.json'));
    await rm(join(directory, 'merges.txt'));
    await writeFile(join(directory, 'tokenizer.json'), JSON.stringify(definition));
    const ids = (await loadTokenizer(directory, 6)).encode('A');
    assert.deepEqual([...ids], [2, 1, 3, 3, 3, 3]);
  });

  it('names a missing vocabulary', async () => {
    await rm(join(directory, 'vocab.json'));
    await assert.rejects(loadTokenizer(directory, 77), (error) => {
      assert.ok(error instanceof ModelLoadFailedError);
      assert.match(error.message, /neither vocab\.json with merges\.txt nor tokenizer\.json/);
      return true;
    });
  });

  it('names a special token that the vocabulary lacks', async () => {
    await writeFile(join(directory, 'special_tokens_map.json'), JSON.stringify({}));
    await writeFile(join(directory, 'tokenizer_config.json'), JSON.stringify({ bos_token: '<s>' }));
    await assert.rejects(loadTokenizer(directory, 77), /lacks the special token <s>/);
  });

  it('names a file that is no JSON', async () => {
    await writeFile(join(directory, 'vocab.json'), '{"a":');
    await assert.rejects(loadTokenizer(directory, 77), /vocab\.json is not valid JSON/);
  });
});
