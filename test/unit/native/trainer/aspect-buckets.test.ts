import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import {
  type SizePx,
  bucketSizes,
  countBySize,
  coverScale,
  sizeName,
  stepsPerEpoch,
  trainedSize,
} from '../../../../native/trainer/aspect-buckets.ts';

const GOLDEN_FILE = path.join(import.meta.dirname, '../../../reference/resample_golden.json');

const { buckets } = JSON.parse(readFileSync(GOLDEN_FILE, 'utf8')) as {
  buckets: { resolution: number; sizes: string; bucketOf: Record<string, string> }[];
};

const parse = (text: string): SizePx => {
  const [widthPx = 0, heightPx = 0] = text.split('x').map(Number);
  return { widthPx, heightPx };
};
const name = (size: SizePx) => sizeName(size).replace('×', 'x');

describe('bucketSizes', () => {
  for (const { resolution, sizes } of buckets) {
    it(`of ${resolution} px are those of the reference`, () => {
      assert.equal(bucketSizes(resolution).map(name).join(' '), sizes);
    });
  }

  it('of 512 px are those of sd-scripts', () => {
    const wide = ['576x448', '640x384', '704x320', '768x320', '832x256', '896x256', '960x256', '1024x256'];
    const high = wide.map((size) => size.split('x').reverse().join('x'));
    assert.deepEqual(new Set(bucketSizes(512).map(name)), new Set(['512x512', ...wide, ...high]));
  });
});

describe('trainedSize', () => {
  for (const { resolution, bucketOf } of buckets) {
    it(`finds the bucket of each picture at ${resolution} px`, () => {
      const pictures = Object.keys(bucketOf);
      const found = pictures.map((text) => [text, name(trainedSize(parse(text), resolution, 'bucket'))]);
      assert.deepEqual(Object.fromEntries(found), bucketOf);
    });
  }

  it('is what docs/training.md says of 512 px', () => {
    const docs = readFileSync(path.join(import.meta.dirname, '../../../../docs/training.md'), 'utf8');
    const rows = [...docs.matchAll(/^\| (\d+)×(\d+) +\| (?:([\d.]+) to ([\d.]+)|from ([\d.]+)) /gm)];
    assert.equal(rows.length, 9);
    for (const [, width, height, from, to, least] of rows) {
      const first = Number(from ?? least) + 0.01;
      for (const ratio of [first, to === undefined ? first + 9 : Number(to) - 0.01]) {
        const picture = { widthPx: Math.round(ratio * 10_000), heightPx: 10_000 };
        assert.equal(name(trainedSize(picture, 512, 'bucket')), `${width}x${height}`, `${ratio}`);
      }
    }
  });

  it('turns with the picture, exceeds no area and enlarges no more than a square would', () => {
    for (let resolutionPx = 64; resolutionPx <= 1024; resolutionPx += 40) {
      for (let ratio = 1; ratio < 8; ratio *= 1.013) {
        const widthPx = Math.round(300 * ratio);
        const size = trainedSize({ widthPx, heightPx: 300 }, resolutionPx, 'bucket');
        const turned = trainedSize({ widthPx: 300, heightPx: widthPx }, resolutionPx, 'bucket');
        const what = `${widthPx}×300 at ${resolutionPx} px became ${sizeName(size)}`;
        assert.deepEqual([turned.heightPx, turned.widthPx], [size.widthPx, size.heightPx], what);
        assert.ok(size.widthPx * size.heightPx <= resolutionPx ** 2, what);
        assert.deepEqual([size.widthPx % 64, size.heightPx % 64], [0, 0], what);
        assert.ok(coverScale({ widthPx, heightPx: 300 }, size) <= resolutionPx / 300, what);
      }
    }
  });

  it('is a square for the other modes', () => {
    for (const mode of ['crop', 'stretch'] as const) {
      assert.equal(name(trainedSize(parse('640x480'), 200, mode)), '200x200');
    }
  });
});

describe('stepsPerEpoch', () => {
  const sizes = ['512x512', '448x576', '512x512', '448x576', '512x512', '640x384'].map(parse);

  it('counts the batches of each size', () => {
    assert.equal(stepsPerEpoch(sizes, { repeats: 1, batchSize: 1 }), 6);
    assert.equal(stepsPerEpoch(sizes, { repeats: 1, batchSize: 2 }), 2 + 1 + 1);
    assert.equal(stepsPerEpoch(sizes, { repeats: 1, batchSize: 16 }), 3);
    assert.equal(stepsPerEpoch(sizes, { repeats: 3, batchSize: 4 }), 3 + 2 + 1);
  });

  it('is that of one list where all have one size', () => {
    const squares = Array.from({ length: 7 }, () => parse('512x512'));
    assert.equal(stepsPerEpoch(squares, { repeats: 2, batchSize: 4 }), 4);
  });

  it('follows from how many there are of each', () => {
    assert.deepEqual(
      countBySize(sizes).map(({ size, count }) => [name(size), count]),
      [
        ['448x576', 2],
        ['512x512', 3],
        ['640x384', 1],
      ],
    );
  });
});
