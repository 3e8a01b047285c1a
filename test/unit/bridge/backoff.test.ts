import assert from 'node:assert/strict';
import { Backoff } from '../../../bridge/backoff.ts';

describe('Backoff', () => {
  it('doubles up to its longest pause, less up to a fifth', () => {
    const backoff = new Backoff(100, 1000);
    for (const expectedMs of [100, 200, 400, 800, 1000, 1000]) {
      const pauseMs = backoff.nextMs();
      assert.ok(pauseMs <= expectedMs && pauseMs >= expectedMs * 0.8, `${pauseMs} for ${expectedMs}`);
    }
  });

  it('stays finite however often it is asked', () => {
    const backoff = new Backoff(100, 1000);
    for (let count = 0; count < 5000; count++) assert.ok(backoff.nextMs() <= 1000);
  });

  it('starts over', () => {
    const backoff = new Backoff(100, 1000);
    backoff.nextMs();
    backoff.nextMs();
    backoff.reset();
    assert.ok(backoff.nextMs() <= 100);
  });
});
