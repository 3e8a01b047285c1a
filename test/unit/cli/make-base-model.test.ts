import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { makeBaseModelCommand, writeAsAWhole } from '../../../cli/make-base-model.ts';

describe('brushwork make-base-model', () => {
  let directory: string;

  beforeEach(() => (directory = mkdtempSync(path.join(tmpdir(), 'make-base-model-'))));
  afterEach(() => rmSync(directory, { recursive: true }));

  const make = (): Promise<number> => makeBaseModelCommand.run(['--preset', 'tiny', '--output', directory]);

  it('leaves nothing of a model that could not be written to its end', async () => {
    writeFileSync(path.join(directory, 'notes.txt'), '');
    const write = async (target: string): Promise<void> => {
      mkdirSync(path.join(target, 'unet'));
      await Promise.reject(new Error('no space left'));
    };
    await assert.rejects(writeAsAWhole(directory, write), /no space left/);
    assert.deepEqual(readdirSync(directory), ['notes.txt']);
  });

  it('writes a model, over what one that was killed has left, and not over a model', async () => {
    mkdirSync(path.join(directory, 'model.part/unet'), { recursive: true });
    assert.equal(await make(), 0);
    const parts = ['model_index.json', 'scheduler', 'text_encoder', 'tokenizer', 'unet', 'vae'];
    assert.deepEqual(readdirSync(directory).sort(), parts);
    await assert.rejects(make(), { code: 'INVALID_REQUEST', message: /holds a model already/ });
  });
});
