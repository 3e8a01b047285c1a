import assert from 'node:assert/strict';
import { ApplicationFailure } from '@temporalio/common';
import { codeOf, failureOf } from './support/expect.ts';
import { resultOf, sceneForEachTest, statusOf } from './support/harness.ts';
import type { Scene } from './support/harness.ts';
import { failure, until } from './support/world.ts';

describe('a backend', function () {
  this.timeout(60_000);
  let scene: Scene;

  sceneForEachTest((made) => (scene = made));

  it('that is down is waited for, visibly, and hears of the result in the end', async () => {
    const { world } = scene;
    let down = true;
    world.when('notify', (_pod, input) => {
      if (down && (input as { kind: string }).kind === 'complete') throw failure('WEBHOOK_UNAVAILABLE', true);
    });
    await scene.addPod('a');
    const input = scene.input();
    input.settings.limits.notify.scheduleToCloseMs = 60_000;
    const handle = await scene.start(input);
    await until(
      async () => (await statusOf(handle)).reason?.includes('WEBHOOK_UNAVAILABLE') === true,
      'reason of the wait',
      40_000,
    );
    assert.equal((await statusOf(handle)).phase, 'notifying');
    down = false;
    assert.equal((await resultOf(handle)).epochs, 30);
    assert.equal(world.finalNotices().length, 1);
  });

  it('that answers late is not asked again while it may still answer', async () => {
    const { world } = scene;
    world.when('notify', async (_pod, input) => {
      if ((input as { kind: string }).kind === 'complete') await new Promise((resolve) => setTimeout(resolve, 2_000));
    });
    await scene.addPod('a');
    const input = scene.input();
    input.settings.limits.notify.scheduleToCloseMs = 1_500;
    const handle = await scene.start(input);
    await resultOf(handle);
    assert.equal((await statusOf(handle)).lastError, null);
    assert.equal(world.finalNotices().length, 1);
  });

  it('that asks for a pause gets it', async () => {
    const { world } = scene;
    const triedAtMs: number[] = [];
    world.when('notify', (_pod, input) => {
      if ((input as { kind: string }).kind !== 'complete' || triedAtMs.push(Date.now()) > 1) return;
      throw ApplicationFailure.create({ type: 'WEBHOOK_UNAVAILABLE', details: [{ retryAfterMs: 1_500 }] });
    });
    await scene.addPod('a');
    await resultOf(await scene.start());
    const [first = 0, second = 0] = triedAtMs;
    assert.ok(second - first >= 1_500, `${second - first} ms`);
  });

  it('that our configuration forbids is asked again: only the backend can refuse a result', async () => {
    const { world } = scene;
    let tries = 0;
    world.when('notify', (_pod, input) => {
      if ((input as { kind: string }).kind !== 'complete') return;
      tries += 1;
      if (tries === 1) throw failure('BLOCKED_TARGET', false);
    });
    await scene.addPod('a');
    const handle = await scene.start();
    await resultOf(handle);
    assert.deepEqual([tries, (await statusOf(handle)).lastError], [2, null]);
  });

  it('that never hears of a failure is shown as such', async () => {
    const { world } = scene;
    world.when('download', () => {
      throw failure('IMAGE_INVALID', false);
    });
    world.when('notify', (_pod, input) => {
      if ((input as { kind: string }).kind === 'failed') throw failure('WEBHOOK_REJECTED', false);
    });
    await scene.addPod('a');
    const handle = await scene.start();
    assert.equal(codeOf(await failureOf(handle)), 'IMAGE_INVALID');
    assert.match((await statusOf(handle)).reason ?? '', /backend does not know.*WEBHOOK_REJECTED/);
  });

  it('that refuses the result for good does not undo the training', async () => {
    const { world } = scene;
    world.when('notify', (_pod, input) => {
      if ((input as { kind: string }).kind === 'complete') throw failure('WEBHOOK_REJECTED', false);
    });
    await scene.addPod('a');
    const handle = await scene.start();
    assert.equal((await resultOf(handle)).epochs, 30);
    const status = await statusOf(handle);
    assert.deepEqual([status.phase, status.lastError?.code], ['done', 'WEBHOOK_REJECTED']);
  });

  it('hears of no time left before a step was measured', async () => {
    const { world } = scene;
    const secondsLeft: unknown[] = [];
    world.when('notify', (_pod, input) => {
      const notice = input as { kind: string; estimatedSeconds?: unknown };
      if (notice.kind === 'progress') secondsLeft.push(notice.estimatedSeconds);
    });
    await scene.addPod('a');
    await resultOf(await scene.start());
    assert.equal(secondsLeft[0], null);
    assert.equal(secondsLeft.at(-1), 0);
  });

  it('that takes no progress notices holds nothing up', async () => {
    const { world } = scene;
    world.when('notify', (_pod, input) => {
      if ((input as { kind: string }).kind === 'progress') throw failure('WEBHOOK_REJECTED', false);
    });
    await scene.addPod('a');
    await resultOf(await scene.start());
    assert.ok(world.log.filter((line) => line === 'notify progress').length >= 3);
  });
});
