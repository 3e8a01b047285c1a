import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { ValidationLoss } from '../../common/types.ts';
import { TestService } from './support/service.ts';
import type { LogLine, WorkerProcess } from './support/worker-process.ts';

const EPOCHS = 30;
/** From the kill to the first new step elsewhere. */
const TAKEOVER_LIMIT_MS = 30_000;

/** Some hosts give five seconds. */
const LEAVE_LIMIT_MS = 5_000;
/** Nobody has to notice a pod that says goodbye. */
const QUICK_TAKEOVER_LIMIT_MS = 12_000;

const isFirstStep = (line: LogLine) => line.msg === 'first step of a chunk';

describe('a pod killed in the middle of a chunk', function () {
  this.timeout(240_000);
  let service: TestService;
  let control: WorkerProcess;

  before(async () => {
    // Two of twelve pictures are held out, so that what is measured on them is put to the same test as the weights.
    service = await TestService.start({ overrides: { training: { recipe: { validation_pictures: 2 } } } });
    control = await service.startWorker(['bridge', 'control']);
  });
  after(() => service.stop());

  it('is replaced within 30 s, and the weights are those of an undisturbed run', async () => {
    const first = await service.startWorker(['pod']);
    const job = service.job(EPOCHS);
    await service.publish(job);
    await first.waitForLine((line) => isFirstStep(line) && line['epoch'] === 10, 'second chunk');
    await service.waitForStatus(job, ({ lastCheckpoint }) => lastCheckpoint?.epoch === 10, 'first checkpoint');
    const second = await service.startWorker(['pod']);
    assert.equal((await service.statusOf(job)).lastCheckpoint?.epoch, 10, 'the chunk must still be running');
    const killedAtMs = Date.now();
    await first.kill();
    const resumed = await second.waitForLine(isFirstStep, 'first step on the second pod');
    const takeoverMs = resumed.atMs - killedAtMs;
    console.log(`      first new step ${(takeoverMs / 1000).toFixed(1)} s after the kill`);
    assert.ok(takeoverMs <= TAKEOVER_LIMIT_MS, `the takeover took ${takeoverMs} ms`);
    assert.equal(resumed['epoch'], 10);

    const result = await service.resultOf(job);
    assert.deepEqual([result.epochs, result.podLosses], [EPOCHS, 1]);
    const published = await service.weightsOf(job);
    for (const [name, bytes] of Object.entries(await service.trainByHand(EPOCHS))) {
      assert.ok(published[name]?.equals(bytes), `${name} differs`);
    }
    assert.deepEqual(
      service.finalNotices(job).map(({ kind }) => kind),
      ['complete'],
    );
    const lossCurve = await service.handleOf(job).query<number[]>('lossCurve');
    assert.equal(lossCurve.length, EPOCHS);
    const validationCurve = await service.handleOf(job).query<ValidationLoss[]>('validationCurve');
    const byHand = readFileSync(path.join(service.directory, `by-hand-${EPOCHS}`, 'validation.jsonl'), 'utf8');
    assert.equal(validationCurve.map((measured) => `${JSON.stringify(measured)}\n`).join(''), byHand);
    assert.deepEqual(
      validationCurve.map(({ epoch }) => epoch),
      [0, 5, 10, 15, 20, 25, 30],
    );
    assert.equal(await second.stop(), 0);
  });

  it('asked to leave goes in time, and the job goes on elsewhere at once', async () => {
    const leaving = await service.startWorker(['pod']);
    const job = service.job(EPOCHS);
    await service.publish(job);
    await service.waitForStatus(job, ({ lastCheckpoint }) => lastCheckpoint?.epoch === 10, 'first checkpoint');
    const next = await service.startWorker(['pod']);
    const askedAtMs = Date.now();
    assert.equal(await leaving.stop(), 0);
    assert.ok(Date.now() - askedAtMs < LEAVE_LIMIT_MS, `took ${Date.now() - askedAtMs} ms`);
    const resumed = await next.waitForLine(isFirstStep, 'first step on the next pod');
    assert.ok(resumed.atMs - askedAtMs < QUICK_TAKEOVER_LIMIT_MS, `took ${resumed.atMs - askedAtMs} ms`);
    const result = await service.resultOf(job);
    assert.deepEqual([result.epochs, result.podLosses], [EPOCHS, 1]);
    await next.stop();
  });

  it('does not mind a control worker that is killed meanwhile', async () => {
    const job = service.job(EPOCHS);
    await service.startWorker(['pod']);
    await service.publish(job);
    await service.waitForStatus(job, ({ lastCheckpoint }) => lastCheckpoint?.epoch === 10, 'first checkpoint');
    await control.kill();
    control = await service.startWorker(['bridge', 'control']);
    const result = await service.resultOf(job);
    assert.deepEqual([result.epochs, result.podLosses], [EPOCHS, 0]);
    assert.equal(service.finalNotices(job).length, 1);
  });
});
