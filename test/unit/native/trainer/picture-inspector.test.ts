import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { inspectFile } from '../../../../native/trainer/data-report.ts';
import { JOB_PICTURE_LIMITS } from '../../../../native/trainer/picture.ts';
import { PictureInspector } from '../../../../native/trainer/picture-inspector.ts';
import { noise } from '../../activities/support/pod.ts';

const OPTIONS = { resolutionPx: 512, resizeMode: 'crop', triggerWord: 'inkwash', fallbackCaption: 'a hill' } as const;

describe('PictureInspector', () => {
  let directory: string;
  let inspector: PictureInspector;

  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'brushwork-inspector-'));
    inspector = new PictureInspector();
  });
  afterEach(() => {
    inspector.close();
    rmSync(directory, { recursive: true });
  });

  const look = (name: string) => inspector.inspect({ directory, name, options: OPTIONS });

  it('tells of each picture what inspectFile does with the limits of a job', async () => {
    writeFileSync(path.join(directory, 'a.png'), await noise(1, 300, 600));
    writeFileSync(path.join(directory, 'b.png'), await noise(2, 200, 200));
    writeFileSync(path.join(directory, 'c.png'), 'no picture');
    const found = await Promise.all(['a.png', 'b.png', 'c.png'].map(look));
    for (const report of found) {
      const expected = await inspectFile(directory, report.name, { ...OPTIONS, limits: JOB_PICTURE_LIMITS });
      assert.deepEqual(report, expected);
    }
    assert.deepEqual(
      found.map(({ faults }) => faults.length),
      [0, 1, 1],
    );
  });

  it('says so where there is no such file', async () => {
    await assert.rejects(look('gone.png'), { code: 'INTERNAL', message: /gone\.png could not be looked at: ENOENT/ });
  });

  it('blames no picture for a process that ends before it is ready', async () => {
    inspector = new PictureInspector({ entryFile: path.join(import.meta.dirname, 'unready-inspector-main.ts') });
    await assert.rejects(look('fine.png'), {
      code: 'INTERNAL',
      retryable: true,
      message: /ended before it had seen any \(exit code 1\)/,
    });
  });

  it('says so where the process can not be started', async () => {
    const before = process.execPath;
    process.execPath = '/nowhere/node';
    try {
      const message = /could not be started \(spawn \/nowhere\/node ENOENT\)/;
      await assert.rejects(look('fine.png'), { code: 'INTERNAL', message });
    } finally {
      process.execPath = before;
    }
  });

  describe('with a decoder that has a fault', () => {
    const entryFile = path.join(import.meta.dirname, 'crashing-inspector-main.ts');
    const before = process.env['INTERNAL_API_TOKEN'];

    beforeEach(() => {
      process.env['INTERNAL_API_TOKEN'] = 'top secret';
      inspector = new PictureInspector({ entryFile });
    });
    afterEach(() => {
      if (before === undefined) delete process.env['INTERNAL_API_TOKEN'];
      else process.env['INTERNAL_API_TOKEN'] = before;
    });

    it('names the picture that crashes it, and goes on with the others', async () => {
      const reports = await Promise.all(['segfault.png', 'fine.png'].map(look));
      assert.deepEqual(
        reports.map(({ name, faults }) => [name, ...faults]),
        [
          ['segfault.png', 'makes the decoder crash (SIGSEGV)'],
          ['fine.png', 'seen 1'],
        ],
      );
    });

    it('blames no picture for one crash', async () => {
      const [, second] = await Promise.all(['fine.png', 'second.png'].map(look));
      assert.deepEqual(second?.faults, ['seen 1']);
    });

    it('blames no picture for want of memory, or of time', async () => {
      await assert.rejects(look('killed.png'), { code: 'INTERNAL', message: /killed\.png was killed twice/ });
      inspector.close();
      inspector = new PictureInspector({ entryFile, limitMs: 500 });
      await assert.rejects(look('stuck.png'), { code: 'INTERNAL', message: /stuck\.png was killed twice/ });
    });

    it('is told none of our keys', async () => {
      assert.deepEqual((await look('secret.png')).faults, ['none']);
    });

    it('can be called off', async () => {
      const waiting = look('stuck.png');
      const next = look('fine.png');
      setTimeout(() => inspector.close(), 300);
      await assert.rejects(waiting, { message: /called off/ });
      await assert.rejects(next, { message: /called off/ });
    });
  });
});
