import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mock } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { PreviewPainter } from '../../../activities/preview-painter.ts';
import type { PreviewConfig } from '../../../common/config-types.ts';
import { CancelledError, GpuOutOfMemoryError } from '../../../common/errors.ts';
import { PREVIEWS } from '../../support/previews.ts';
import { TestPod } from './support/pod.ts';

const NEVER = new AbortController().signal;

describe('PreviewPainter', () => {
  let pod: TestPod;
  let warnings: unknown[];

  beforeEach(() => {
    pod = new TestPod();
    warnings = [];
  });
  afterEach(() => pod.close());

  const log = { info: () => undefined, warn: (_message: string, meta: object) => void warnings.push(meta) };
  const job = (holdId: string = pod.holdId) => ({ holdId, jobDirectory: pod.jobDirectory });
  const at = (epoch: number, isLast = false) => ({ epoch, isLast });
  const painterWith = (changes: Partial<PreviewConfig> = {}) =>
    new PreviewPainter({ trainer: pod.trainer, previews: { ...PREVIEWS, ...changes } });

  it('draws a sheet whose name tells the epoch', async () => {
    const file = await painterWith().draw(job(), at(10), NEVER, log);
    assert.equal(file, `${pod.jobDirectory}/previews/epoch-000010.png`);
    assert.match(readFileSync(file, 'utf8'), /^sheet /);
  });

  it('draws none where they are off', async () => {
    const painter = new PreviewPainter({ trainer: pod.trainer, previews: null });
    assert.equal(await painter.draw(job(), at(10), NEVER, log), null);
    assert.deepEqual(pod.trainer.calls, []);
  });

  it('leaves a checkpoint without one while drawing would take too much of the time', async () => {
    pod.trainer.onSheet = () => sleep(60);
    const painter = painterWith({ maxShare: 0.25 });
    assert.notEqual(await painter.draw(job(), at(10), NEVER, log), null);
    assert.equal(await painter.draw(job(), at(20), NEVER, log), null);
    assert.notEqual(await painter.draw(job(), at(30, true), NEVER, log), null, 'the last is always drawn');
    // Another job is not to suffer from it.
    assert.notEqual(await painter.draw(job('another'), at(10), NEVER, log), null);
    await sleep(200);
    assert.notEqual(await painter.draw(job('another'), at(20), NEVER, log), null);
    assert.equal(pod.trainer.calls.length, 4);
  });

  const fail = () => Promise.reject(new GpuOutOfMemoryError('no room'));
  const succeed = () => Promise.resolve();

  it('goes on after a failure, which may be an accident, and says why', async () => {
    const painter = painterWith();
    for (const epoch of [10, 30]) {
      pod.trainer.onSheet = fail;
      assert.equal(await painter.draw(job(), at(epoch), NEVER, log), null);
      pod.trainer.onSheet = succeed;
      assert.notEqual(await painter.draw(job(), at(epoch + 10), NEVER, log), null);
    }
    assert.deepEqual(
      warnings,
      [10, 30].map((epoch) => ({ epoch, reason: 'no room' })),
    );
  });

  it('gives up for this job after two failures in a row, but for its last sheet', async () => {
    const painter = painterWith();
    pod.trainer.onSheet = fail;
    for (const epoch of [10, 20]) assert.equal(await painter.draw(job(), at(epoch), NEVER, log), null);
    pod.trainer.onSheet = succeed;
    assert.equal(await painter.draw(job(), at(30), NEVER, log), null);
    assert.notEqual(await painter.draw(job('another'), at(10), NEVER, log), null);
    pod.trainer.onSheet = fail;
    for (const epoch of [10, 20]) assert.equal(await painter.draw(job(), at(epoch), NEVER, log), null);
    pod.trainer.onSheet = succeed;
    assert.notEqual(await painter.draw(job(), at(40, true), NEVER, log), null, 'the last is always tried');
  });

  it('counts the time of a failure as that of a sheet', async () => {
    const painter = painterWith({ maxShare: 0.25 });
    pod.trainer.onSheet = () => sleep(60).then(fail);
    assert.equal(await painter.draw(job(), at(10), NEVER, log), null);
    pod.trainer.onSheet = succeed;
    assert.equal(await painter.draw(job(), at(20), NEVER, log), null);
    assert.equal(pod.trainer.calls.length, 1);
    await sleep(250);
    assert.notEqual(await painter.draw(job(), at(30), NEVER, log), null);
  });

  it('stops a sheet that takes too long', async () => {
    let stopped = false;
    pod.trainer.onSheet = (signal) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => {
          stopped = true;
          reject(signal.reason as Error);
        });
      });
    assert.equal(await painterWith({ timeLimitMs: 20 }).draw(job(), at(10), NEVER, log), null);
    assert.ok(stopped);
    assert.match(JSON.stringify(warnings), /longer than 0 s \(previews\.timeLimit\)/);
    assert.ok(!pod.trainer.calls.includes('kill'));
  });

  it('ends a trainer that does not stop drawing', async () => {
    await pod.trainer.prepare(await pod.preparedJob(), null, NEVER);
    pod.trainer.onSheet = () => new Promise(() => undefined);
    const timers = mock.timers;
    timers.enable({ apis: ['setTimeout'] });
    try {
      const drawing = painterWith({ timeLimitMs: 1000 }).draw(job(), at(10), NEVER, log);
      timers.tick(1000);
      assert.ok(!pod.trainer.calls.includes('kill'));
      timers.tick(30_000);
      assert.equal(await drawing, null);
    } finally {
      timers.reset();
    }
    assert.ok(pod.trainer.calls.includes('kill'));
  });

  it('ends with the reason when its work is called off', async () => {
    const called = new AbortController();
    pod.trainer.onSheet = () => {
      called.abort(new CancelledError('enough'));
      return Promise.reject(new Error('stopped'));
    };
    await assert.rejects(painterWith().draw(job(), at(10), called.signal, log), /enough/);
    assert.deepEqual(warnings, []);
  });
});
