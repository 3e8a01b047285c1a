import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { hostname, tmpdir } from 'node:os';
import path from 'node:path';
import { aloneIn } from '../../../cli/run-lock.ts';

describe('cli/run-lock', () => {
  let directory: string;
  let lock: string;

  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'brushwork-lock-'));
    lock = path.join(directory, 'run.lock');
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  it('lets one run write to a directory', async () => {
    await aloneIn(directory, async () => {
      const second = aloneIn(directory, async () => assert.fail('not alone'));
      await assert.rejects(second, {
        code: 'INVALID_REQUEST',
        message: new RegExp(`^Another run writes to ${directory} \\(process ${process.pid} on `),
      });
    });
    assert.equal(await aloneIn(directory, async () => 'next'), 'next');
    assert.ok(!existsSync(lock));
  });

  it('gives the directory back when the work fails', async () => {
    await assert.rejects(
      aloneIn(directory, () => Promise.reject(new Error('boom'))),
      /boom/,
    );
    assert.ok(!existsSync(lock));
  });

  it('takes over from a process that was killed, and from a torn file', async () => {
    const { pid } = spawnSync('true');
    writeFileSync(lock, JSON.stringify({ pid, host: hostname() }));
    assert.equal(await aloneIn(directory, async () => 'mine'), 'mine');
    writeFileSync(lock, '{"pid":');
    assert.equal(await aloneIn(directory, async () => 'mine'), 'mine');
  });

  it('believes a run on another machine', async () => {
    writeFileSync(lock, JSON.stringify({ pid: 1, host: 'elsewhere' }));
    await assert.rejects(
      aloneIn(directory, async () => 'mine'),
      /process 1 on elsewhere/,
    );
  });
});
