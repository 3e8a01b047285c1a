import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { OutputDirectory, makeOutputDirectory } from '../../../cli/output-directory.ts';

describe('output directory', () => {
  let directory: string;
  const at = (name: string): string => path.join(directory, name);

  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'output-directory-'));
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  it('is made with those above it', async () => {
    await makeOutputDirectory(at('a/b'));
    await makeOutputDirectory(at('a/b'));
    assert.ok(statSync(at('a/b')).isDirectory());
    assert.deepEqual(readdirSync(at('a/b')), []);
  });

  it('is refused in words where it can not be made, and not tried for ever', async () => {
    writeFileSync(at('file'), '');
    for (const [into, reason] of [
      [at('file'), /: .*\/file is a file\. Name another/],
      [at('file/below'), /below can't be made .*: .*\/file is a file\. Name another/],
      ['/proc/brushwork', /ENOENT/],
    ] as const) {
      await assert.rejects(makeOutputDirectory(into), {
        code: 'INVALID_REQUEST',
        message: /output directory .* can't be made/,
      });
      await assert.rejects(makeOutputDirectory(into), { message: reason });
    }
  });

  it('is refused where it can not be written to, by anybody', async () => {
    await assert.rejects(makeOutputDirectory('/proc'), {
      code: 'INVALID_REQUEST',
      message: /output directory \/proc can't be made or written to: .*Name another/,
    });
  });

  for (const name of ['lora_weights.safetensors', 'kohya.safetensors', 'peft', 'loss.png', 'previews']) {
    it(`is refused with ${name} of an earlier run`, () => {
      writeFileSync(at(name), '');
      const message = `${at(name)} is of an earlier run, which would be written over: name another --output, or delete what that run left.`;
      assert.throws(() => new OutputDirectory(directory, false), { code: 'INVALID_REQUEST', message });
    });
  }

  it('is taken with other files, and with the steps of a run that came to no checkpoint', () => {
    for (const name of ['notes.txt', 'steps.jsonl', 'checkpoint.json', 'validation.jsonl']) writeFileSync(at(name), '');
    assert.equal(new OutputDirectory(directory, false).directory, directory);
  });

  it('of an interrupted run wants --resume, also where only the checkpoint before the newest is left', () => {
    for (const name of ['checkpoint.safetensors', 'checkpoint.previous.safetensors']) {
      writeFileSync(at(name), '');
      assert.throws(() => new OutputDirectory(directory, false), {
        code: 'INVALID_REQUEST',
        message: `${at(name)} is of a run that was interrupted: go on with --resume, or delete it to start anew.`,
      });
      assert.ok(new OutputDirectory(directory, true).resume);
      rmSync(at(name));
    }
    assert.throws(() => new OutputDirectory(directory, true), /does not exist: start without --resume/);
    for (const name of ['checkpoint.safetensors', 'checkpoint.previous.safetensors']) writeFileSync(at(name), '');
    assert.throws(
      () => new OutputDirectory(directory, false),
      /\/checkpoint\.safetensors and .*previous\.safetensors are of .* delete them to start anew\.$/,
    );
  });
});
