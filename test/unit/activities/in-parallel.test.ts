import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { inParallel } from '../../../activities/in-parallel.ts';

describe('inParallel', () => {
  it('returns results in the order of the items, however long each takes', async () => {
    const results = await inParallel([30, 1, 10], 2, async (ms) => {
      await sleep(ms);
      return ms;
    });
    assert.deepEqual(results, [30, 1, 10]);
  });

  it('has no more under way than allowed', async () => {
    let now = 0;
    let most = 0;
    await inParallel(Array.from({ length: 20 }), 8, async () => {
      now += 1;
      most = Math.max(most, now);
      await sleep(2);
      now -= 1;
    });
    assert.equal(most, 8);
  });

  it('begins nothing new after an error, and waits for what is under way', async () => {
    const begun: number[] = [];
    let finished = false;
    const work = async (item: number) => {
      begun.push(item);
      if (item === 0) throw new Error('first');
      await sleep(20);
      finished = true;
    };
    await assert.rejects(inParallel([0, 1, 2, 3], 2, work), /first/);
    assert.deepEqual(begun, [0, 1]);
    assert.ok(finished);
  });
});
