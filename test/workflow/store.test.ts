import assert from 'node:assert/strict';
import { assertOneFailedNotice, codeOf, failureOf } from './support/expect.ts';
import { resultOf, sceneForEachTest, statusOf } from './support/harness.ts';
import type { Scene } from './support/harness.ts';
import { failure, until } from './support/world.ts';

describe('a store', function () {
  this.timeout(60_000);
  let scene: Scene;

  sceneForEachTest((made) => (scene = made));

  for (const [name, phase] of [
    ['findResumePoint', 'preparing'],
    ['promote', 'publishing'],
  ] as const) {
    it(`that is down under ${name} is waited for with a reason to see`, async () => {
      const { world } = scene;
      let isDown = true;
      world.when(name, () => {
        if (isDown) throw failure('STORAGE_UNAVAILABLE', true);
      });
      await scene.addPod('a');
      const input = scene.input();
      input.settings.limits.promote.scheduleToCloseMs = 60_000;
      const handle = await scene.start(input);
      const isExplained = async () =>
        (await statusOf(handle)).reason?.includes('STORAGE_UNAVAILABLE happened.') === true;
      await until(isExplained, 'reason of the wait');
      assert.equal((await statusOf(handle)).phase, phase);
      isDown = false;
      assert.equal((await resultOf(handle)).epochs, 30);
      assert.equal((await statusOf(handle)).lastError, null);
      assert.equal(world.loggedOf('holdPod').filter((line) => line.endsWith('start')).length, 1);
    });
  }

  it('that refuses the weights ends the job', async () => {
    scene.world.when('promote', () => {
      throw failure('ACCESS_DENIED', false);
    });
    await scene.addPod('a');
    assert.equal(codeOf(await failureOf(await scene.start())), 'ACCESS_DENIED');
    assertOneFailedNotice(scene.world, 'ACCESS_DENIED');
    assert.equal(scene.world.loggedOf('promote').length, 1);
  });

  it('that stays away while weights are published fails the job once the time is over', async () => {
    const tries: unknown[] = [];
    scene.world.when('promote', (_pod, input) => {
      tries.push((input as { tryCount?: number }).tryCount);
      throw failure('STORAGE_UNAVAILABLE', true);
    });
    await scene.addPod('a');
    const input = scene.input();
    input.settings.limits.promote.scheduleToCloseMs = 1_000;
    assert.equal(codeOf(await failureOf(await scene.start(input))), 'STORAGE_UNAVAILABLE');
    assertOneFailedNotice(scene.world, 'STORAGE_UNAVAILABLE');
    assert.deepEqual(tries.slice(0, 2), [1, 2], 'the clean-up gives up after so many');
  });
});
