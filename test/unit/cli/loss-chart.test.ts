import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import sharp from 'sharp';
import { lossChartSvg, writeLossChart } from '../../../cli/loss-chart.ts';
import { strokeText } from '../../../common/stroke-font.ts';

/** Points of the lines of a chart: those of the steps first, then the means. */
function linesOf(svg: string): { x: number; y: number }[][] {
  return [...svg.matchAll(/<polyline points="([^"]*)"/g)].map((match) =>
    (match[1] ?? '')
      .split(' ')
      .filter((pair) => pair !== '')
      .map((pair) => {
        const [x = NaN, y = NaN] = pair.split(',').map(Number);
        return { x, y };
      }),
  );
}

describe('cli/loss-chart', () => {
  it('draws a falling loss as a line that goes down to the right, inside the picture', () => {
    const [steps = [], means = []] = linesOf(
      lossChartSvg({ epochLosses: [0.5, 0.3, 0.2], stepLosses: [0.6, 0.4, 0.3, 0.3, 0.2, 0.2] }),
    );
    assert.equal(steps.length, 6);
    assert.equal(means.length, 3);
    const [first, second, third] = means;
    assert.ok(first && second && third);
    assert.ok(first.x < second.x && second.x < third.x);
    assert.ok(first.y < second.y && second.y < third.y, 'y grows downwards');
    for (const { x, y } of [...steps, ...means]) {
      assert.ok(x >= 90 && x <= 930 && y >= 60 && y <= 470, `${x},${y} lies outside`);
    }
  });

  it('ends both lines at the same place: at the last epoch', () => {
    const [steps = [], means = []] = linesOf(lossChartSvg({ epochLosses: [2, 1], stepLosses: [3, 1, 1, 1] }));
    assert.equal(steps.at(-1)?.x, means.at(-1)?.x);
    assert.equal(means.at(-1)?.x, 930);
  });

  it('draws what was measured on held-out pictures over its epochs, from the very beginning on', () => {
    const curve = { epochLosses: [0.5, 0.4, 0.3, 0.2], stepLosses: [] };
    assert.equal(linesOf(lossChartSvg(curve)).length, 2);
    const validationLosses = [
      { epoch: 0, loss: 0.9 },
      { epoch: 2, loss: 0.5 },
      { epoch: 4, loss: 0.4 },
    ];
    const [, means = [], validation = []] = linesOf(lossChartSvg({ ...curve, validationLosses }));
    assert.deepEqual(
      validation.map(({ x }) => x),
      [90, 510, 930],
    );
    const [first, second] = validation;
    assert.ok(first && second && first.y >= 60 && first.y < second.y);
    assert.equal(second.y, linesOf(lossChartSvg({ ...curve, validationLosses }))[1]?.[0]?.y, 'one scale for both');
    assert.equal(means.length, 4);
  });

  it('shows a single epoch as a dot', () => {
    const svg = lossChartSvg({ epochLosses: [0.25], stepLosses: [] });
    assert.match(svg, /<circle /);
    assert.doesNotMatch(lossChartSvg({ epochLosses: [0.25, 0.2], stepLosses: [] }), /<circle /);
  });

  for (const [what, losses] of [
    ['constant', [0.5, 0.5, 0.5]],
    ['zero', [0, 0]],
    ['very small', [1e-9, 2e-9]],
    ['huge', [1e9, 3e9]],
    ['not finite in places', [1, NaN, 0.5, Infinity]],
  ] as const) {
    it(`draws numbers that are ${what}`, () => {
      const svg = lossChartSvg({ epochLosses: losses, stepLosses: [] });
      assert.doesNotMatch(svg, /NaN|Infinity/);
      for (const { y } of linesOf(svg).flat()) assert.ok(y >= 60 - 0.1 && y <= 470.1, `${y} lies outside`);
    });
  }

  it('averages neighbours where there are more steps than pixels', () => {
    const stepLosses = Array.from({ length: 50_000 }, (_, i) => i % 2);
    const [steps = []] = linesOf(lossChartSvg({ epochLosses: [0.5, 0.5], stepLosses }));
    assert.ok(steps.length > 500 && steps.length <= 1200, String(steps.length));
    assert.equal(new Set(steps.map(({ y }) => y)).size, 1, 'the mean of each group is the same');
  });

  it('explains the thin line only where there is one', () => {
    const letters = (svg: string) => svg.split('<path').length;
    const without = lossChartSvg({ epochLosses: [0.5, 0.4], stepLosses: [] });
    const withSteps = lossChartSvg({ epochLosses: [0.5, 0.4], stepLosses: [0.5, 0.4] });
    assert.ok(letters(withSteps) > letters(without));
  });

  it('needs no font: there is no text element', () => {
    assert.doesNotMatch(lossChartSvg({ epochLosses: [0.5, 0.4], stepLosses: [0.5] }), /<text/);
    assert.throws(() => strokeText('Ж', { x: 0, y: 0, heightPx: 12, color: '#000' }), RangeError);
  });

  it('writes a PNG with something on it, and nothing beside it', async () => {
    const directory = mkdtempSync(path.join(tmpdir(), 'brushwork-chart-'));
    try {
      await writeLossChart({ epochLosses: [0.5, 0.4], stepLosses: [] }, path.join(directory, 'loss.png'));
      const image = sharp(path.join(directory, 'loss.png'));
      const { format, width, height } = await image.metadata();
      assert.deepEqual([format, width, height], ['png', 960, 540]);
      const { channels } = await image.stats();
      assert.ok(channels.slice(0, 3).every(({ min, max }) => min < 200 && max === 255));
      assert.deepEqual(readdirSync(directory), ['loss.png']);
    } finally {
      rmSync(directory, { recursive: true, force: true });
    }
  });
});
