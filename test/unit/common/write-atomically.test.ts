import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { writeAtomically } from '../../../common/write-atomically.ts';

describe('writeAtomically', () => {
  let directory: string;

  beforeEach(() => (directory = mkdtempSync(path.join(tmpdir(), 'write-atomically-'))));
  afterEach(() => rmSync(directory, { recursive: true }));

  it('replaces a file and leaves nothing else', async () => {
    const file = path.join(directory, 'a.txt');
    writeFileSync(file, 'old');
    await writeAtomically(file, 'new');
    assert.equal(readFileSync(file, 'utf8'), 'new');
    assert.deepEqual(readdirSync(directory), ['a.txt']);
  });

  it('leaves nothing where it fails', async () => {
    mkdirSync(path.join(directory, 'taken', 'full'), { recursive: true });
    await assert.rejects(writeAtomically(path.join(directory, 'taken'), 'new'), {
      name: 'InternalError',
      message: /taken can't be written \(.*EISDIR.*\): free space there/,
    });
    assert.deepEqual(readdirSync(directory), ['taken']);
  });

  it('says what is wrong where there is a file instead of the directory', async () => {
    writeFileSync(path.join(directory, 'file'), '');
    await assert.rejects(writeAtomically(path.join(directory, 'file', 'below'), 'new'), {
      name: 'InternalError',
      message: /file\/below can't be written \(.*ENOTDIR.*\): free space there, or check the directory/,
    });
  });
});
