import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { watchPart } from '../../../scripts/demo/service.ts';
import { Part } from '../../../scripts/stack/part.ts';

describe('watching a part of the demo', () => {
  let logDirectory: string;

  before(() => (logDirectory = mkdtempSync(path.join(os.tmpdir(), 'brushwork-test-'))));
  after(() => rmSync(logDirectory, { recursive: true, force: true }));

  async function endingOf(script: string): Promise<string> {
    const part = new Part({
      name: 'pod',
      command: ['sh', '-c', `sleep 0.5; ${script}`],
      env: { PATH: process.env['PATH'] },
      logDirectory,
      checkHealth: () => Promise.resolve(),
    });
    await part.start();
    assert.equal(part.ending, null);
    return watchPart(part, new AbortController().signal).catch((error: unknown) => (error as Error).message);
  }

  it('names the signal that has ended it, and who sends that one', async () => {
    assert.match(await endingOf('kill -KILL $$'), /^pod has ended unexpectedly by SIGKILL: .*memory.*dmesg.*pod\.log$/);
    assert.match(
      await endingOf('kill -SEGV $$'),
      /^pod has ended unexpectedly by SIGSEGV: why is at the end of .*pod\.log$/,
    );
  });

  it('names the exit code', async () => {
    assert.match(
      await endingOf('exit 3'),
      /^pod has ended unexpectedly with exit code 3: why is at the end of .*pod\.log$/,
    );
  });
});
