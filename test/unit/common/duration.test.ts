import assert from 'node:assert/strict';
import { MAX_DURATION_MS, parseDurationMs } from '../../../common/duration.ts';

describe('parseDurationMs', () => {
  const readable: [string, number][] = [
    ['500ms', 500],
    ['30s', 30_000],
    ['1.5m', 90_000],
    ['24h', 86_400_000],
    ['7d', 604_800_000],
    [' 10 s ', 10_000],
    ['0s', 0],
  ];
  for (const [text, durationMs] of readable) {
    it(`reads ${JSON.stringify(text)} as ${durationMs} ms`, () => {
      assert.equal(parseDurationMs(text), durationMs);
    });
  }

  for (const text of ['', '30', 's', '-1s', '1e3s', '10 minutes', '1h30m', 'Infinitys', '30S']) {
    it(`refuses ${JSON.stringify(text)}`, () => {
      assert.equal(parseDurationMs(text), null);
    });
  }

  it('refuses what a timer would silently turn into 1 ms', () => {
    assert.equal(parseDurationMs(`${MAX_DURATION_MS}ms`), MAX_DURATION_MS);
    assert.equal(parseDurationMs(`${MAX_DURATION_MS + 1}ms`), null);
    assert.equal(parseDurationMs('25d'), null);
  });
});
