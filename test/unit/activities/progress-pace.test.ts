import assert from 'node:assert/strict';
import { mock } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ProgressPace } from '../../../activities/progress-pace.ts';
import { until } from './support/heartbeats.ts';
import { quietEnvironment } from './support/pod.ts';

describe('ProgressPace', () => {
  const within = (work: () => Promise<void>) => quietEnvironment().run(work);

  it('keeps its pace over chunks that are shorter than the interval', () =>
    within(async () => {
      const pace = new ProgressPace(60);
      let sent = 0;
      const startedAt = Date.now();
      while (Date.now() - startedAt < 300) {
        const chunk = pace.send('hold', () => Promise.resolve(void (sent += 1)));
        await sleep(20);
        chunk.stop();
      }
      assert.ok(sent >= 2 && sent <= 5, `${sent} notices`);
    }));

  it('goes on when the clock is set back an hour', () =>
    within(async () => {
      const pace = new ProgressPace(30);
      let sent = 0;
      const chunk = pace.send('hold', () => Promise.resolve(void (sent += 1)));
      const anHourAgo = Date.now() - 3_600_000;
      const clock = mock.method(Date, 'now', () => anHourAgo);
      await sleep(100).finally(() => clock.mock.restore());
      chunk.stop();
      assert.ok(sent >= 1, 'no notice');
    }));

  it('starts anew with another job', () =>
    within(async () => {
      const pace = new ProgressPace(50);
      pace.send('one', () => Promise.resolve()).stop();
      await sleep(100);
      let sent = 0;
      const next = pace.send('two', () => Promise.resolve(void (sent += 1)));
      await sleep(25);
      assert.equal(sent, 0);
      next.stop();
    }));

  it('sends no second notice while one is under way, and ends that with the chunk', () =>
    within(async () => {
      const pace = new ProgressPace(10);
      const signals: AbortSignal[] = [];
      const chunk = pace.send('hold', (signal) => {
        signals.push(signal);
        return new Promise((_resolve, reject) =>
          signal.addEventListener('abort', () => reject(signal.reason as Error)),
        );
      });
      await until(() => signals.length > 0, 'notice');
      await sleep(50);
      assert.equal(signals.length, 1);
      chunk.stop();
      assert.ok(signals[0]?.aborted);
    }));
});
