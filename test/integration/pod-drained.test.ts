import assert from 'node:assert/strict';
import { TestService } from './support/service.ts';

/** Long enough to be drained in the middle of it. */
const EPOCHS = 20;
const LEAVE_LIMIT_MS = 5_000;

describe('a pod that is drained', function () {
  this.timeout(120_000);
  let service: TestService;

  before(async () => {
    service = await TestService.start();
    await service.startWorker(['bridge', 'control']);
  });
  after(() => service.stop());

  it('trains its job to the end, takes no other, and ends', async () => {
    const pod = await service.startWorker(['pod']);
    const [inHand, waiting] = [service.job(EPOCHS), service.job(1)];
    await service.publish(inHand);
    await service.waitForStatus(inHand, ({ lastCheckpoint }) => lastCheckpoint?.epoch === 10, 'first checkpoint');
    await service.publish(waiting);
    await service.waitForStatus(waiting, ({ phase }) => phase === 'waiting-for-pod', 'a second job');

    const exitCode = pod.drain();
    await pod.waitForLine(({ msg }) => msg === 'draining', 'that it drains');
    assert.equal(await exitCode, 0, pod.tail());
    const told = pod.lines.filter(({ msg }) => ['draining', 'drained', 'stopping'].includes(msg)).map(({ msg }) => msg);
    assert.deepEqual(told, ['draining', 'drained']);
    const steps = pod.lines.filter(({ msg }) => msg === 'first step of a chunk');
    assert.deepEqual([...new Set(steps.map((line) => line['style']))], [inHand.styleId]);
    assert.deepEqual(await service.resultOf(inHand).then(({ epochs, podLosses }) => [epochs, podLosses]), [EPOCHS, 0]);
    assert.equal((await service.statusOf(waiting)).phase, 'waiting-for-pod');

    const next = await service.startWorker(['pod']);
    assert.equal((await service.resultOf(waiting)).podLosses, 0);
    assert.equal(await next.drain(), 0);
  });

  it('leaves at once where it has no job, its other roles too', async () => {
    const pod = await service.startWorker(['control', 'pod']);
    const askedAtMs = Date.now();
    assert.equal(await pod.drain(), 0, pod.tail());
    assert.ok(Date.now() - askedAtMs < LEAVE_LIMIT_MS, `it took ${Date.now() - askedAtMs} ms to leave`);
  });

  it('is no pod: a control worker takes it for SIGTERM', async () => {
    const control = await service.startWorker(['control']);
    assert.equal(await control.drain(), 0, control.tail());
  });
});
