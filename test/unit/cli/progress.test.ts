import assert from 'node:assert/strict';
import { ProgressDisplay, barText, downloadDisplay, durationText, progressText } from '../../../cli/progress.ts';
import type { Progress, ProgressOutput } from '../../../cli/progress.ts';

const HALF: Progress = { epoch: 5, totalEpochs: 10, loss: 0.123456, stepsPerSecond: 2.345, remainingSeconds: 42 };
const END: Progress = { ...HALF, epoch: 10, remainingSeconds: 0 };

/** An output that keeps what was written, and a clock that the test moves. */
function record(isTTY: boolean): { display: ProgressDisplay; texts: string[]; pass: (ms: number) => void } {
  const texts: string[] = [];
  const output: ProgressOutput = { isTTY, write: (text) => texts.push(text) };
  let nowMs = 1_000;
  const pass = (ms: number) => {
    nowMs += ms;
  };
  return { display: new ProgressDisplay(output, () => nowMs), texts, pass };
}

describe('cli/progress', () => {
  for (const [seconds, text] of [
    [0, '0 s'],
    [59.4, '59 s'],
    [59.5, '1 min 00 s'],
    [185, '3 min 05 s'],
    [3599.6, '1 h 00 min'],
    [7_800, '2 h 10 min'],
    [360_000, '100 h 00 min'],
  ] as const) {
    it(`tells ${seconds} seconds as "${text}"`, () => assert.equal(durationText(seconds), text));
  }

  it('shows epoch, loss, speed and time left', () => {
    assert.equal(progressText(HALF), 'epoch  5/10  loss 0.1235  2.35 steps/s  ETA 42 s');
  });

  it('counts only whole epochs', () => {
    assert.match(progressText({ ...HALF, epoch: 5.99 }), /^epoch {2}5\/10 /);
  });

  it('draws a bar of one width, whatever the share', () => {
    for (const share of [-1, 0, 0.01, 0.5, 0.999, 1, 2]) assert.equal([...barText(share)].length, 28);
    assert.equal(barText(0), '░'.repeat(28));
    assert.equal(barText(0.5), '█'.repeat(14) + '░'.repeat(14));
    assert.equal(barText(1), '█'.repeat(28));
  });

  it('redraws one line on a terminal, and leaves it at the end', () => {
    const { display, texts, pass } = record(true);
    display.update(HALF);
    pass(50);
    display.update(HALF);
    pass(60);
    display.update(HALF);
    display.end();
    display.end();
    assert.equal(texts.length, 3, 'updates closer than 100 ms are left out, and the end counts once');
    for (const text of texts.slice(0, 2)) {
      assert.ok(text.startsWith('\r\x1b[K█'));
      assert.ok(!text.includes('\n'));
    }
    assert.equal(texts[2], '\n');
  });

  it('writes plain lines every five seconds elsewhere', () => {
    const { display, texts, pass } = record(false);
    for (let i = 0; i < 12; i++) {
      display.update(HALF);
      pass(1_000);
    }
    display.end();
    assert.deepEqual(texts, Array(3).fill(`${progressText(HALF)}\n`));
  });

  it('always shows the end', () => {
    const { display, texts } = record(false);
    display.update(HALF);
    display.update(END);
    assert.equal(texts[1], `${progressText(END)}\n`);
  });

  it('tells how far a download is: each tenth on its own line, each hundredth in one line of a terminal', () => {
    const shown = (isTTY: boolean) => {
      const texts: string[] = [];
      const show = downloadDisplay({ isTTY, write: (text) => texts.push(text) });
      for (let doneBytes = 0; doneBytes <= 2 ** 30; doneBytes += 2 ** 20) show({ doneBytes, totalBytes: 2 ** 30 });
      return texts;
    };
    assert.equal(shown(false).length, 11);
    assert.equal(shown(false)[3], 'downloading the base model: 30 % of 1024 MiB\n');
    assert.equal(shown(true).length, 101);
    assert.equal(shown(true).filter((text) => text.includes('\n')).length, 1);
  });
});
