import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import sharp from 'sharp';
import type { ResizeMode } from '../../../../common/types.ts';
import { LOCAL_PICTURE_LIMITS, decodePicture } from '../../../../native/trainer/picture.ts';
import { cropToSize, stretchToSquare } from '../../../../native/trainer/resample.ts';
import { type Pattern, patternPng } from './support/patterns.ts';

const GOLDEN_FILE = path.join(import.meta.dirname, '../../../reference/resample_golden.json');

/** Mean difference that resizing may have from Pillow's, of 255. */
const MAX_MEAN_DIFFERENCE = 2;

interface Square {
  width: number;
  height: number;
  side: number;
  pixels: string;
  expected: string;
}

interface Covered extends Omit<Square, 'side'> {
  target: [width: number, height: number];
}

interface Decoded extends Omit<Square, 'pixels'> {
  pattern: Pattern;
  mode: ResizeMode;
}

interface Bucketed extends Omit<Covered, 'pixels'> {
  pattern: Pattern;
  resolution: number;
}

const golden = JSON.parse(readFileSync(GOLDEN_FILE, 'utf8')) as {
  cropped: Square[];
  stretched: Square[];
  covered: Covered[];
  decoded: Decoded[];
  bucketed: Bucketed[];
};

/** Of all bytes. */
function meanDifference(found: Uint8Array, expected: string): number {
  const wanted = Buffer.from(expected, 'base64');
  assert.equal(found.length, wanted.length);
  return found.reduce((total, value, index) => total + Math.abs(value - (wanted[index] ?? 0)), 0) / found.length;
}

describe('cropToSize', () => {
  const squares = golden.cropped.map((square): Covered => ({ ...square, target: [square.side, square.side] }));
  for (const { width, height, target, pixels, expected } of [...squares, ...golden.covered]) {
    it(`equals Pillow's Lanczos from ${width}×${height} to ${target.join('×')} px`, () => {
      const picture = { widthPx: width, heightPx: height, pixels: Buffer.from(pixels, 'base64') };
      const [widthPx, heightPx] = target;
      assert.deepEqual(Buffer.from(cropToSize(picture, { widthPx, heightPx })), Buffer.from(expected, 'base64'));
    });
  }
});

describe('stretchToSquare', () => {
  for (const { width, height, side, pixels, expected } of golden.stretched) {
    it(`equals Pillow's Lanczos from ${width}×${height} to ${side} px`, () => {
      const picture = { widthPx: width, heightPx: height, pixels: Buffer.from(pixels, 'base64') };
      assert.deepEqual(Buffer.from(stretchToSquare(picture, side)), Buffer.from(expected, 'base64'));
    });
  }
});

describe('cropToSize of a strip', () => {
  it('needs little memory for a strip that would become endless', () => {
    const heightPx = 3_000_000;
    const picture = { widthPx: 1, heightPx, pixels: new Uint8Array(heightPx * 3).fill(70) };
    assert.ok(cropToSize(picture, { widthPx: 512, heightPx: 512 }).every((value) => value === 70));
  });
});

describe('decodePicture, resizing', () => {
  for (const { pattern, width, height, mode, side, expected } of golden.decoded) {
    it(`is near Pillow's Lanczos: ${pattern}, ${mode} from ${width}×${height} to ${side} px`, async () => {
      const bytes = await patternPng(pattern, width, height);
      const { pixels } = await decodePicture(bytes, side, LOCAL_PICTURE_LIMITS, mode);
      const mean = meanDifference(pixels, expected);
      assert.ok(mean <= MAX_MEAN_DIFFERENCE, `mean difference ${mean.toFixed(2)}`);
    });
  }
  for (const { pattern, width, height, resolution, target, expected } of golden.bucketed) {
    it(`is near Pillow's Lanczos: ${pattern}, ${width}×${height} in the bucket ${target.join('×')}`, async () => {
      const bytes = await patternPng(pattern, width, height);
      const { widthPx, heightPx, pixels } = await decodePicture(bytes, resolution, LOCAL_PICTURE_LIMITS, 'bucket');
      assert.deepEqual([widthPx, heightPx], target);
      const mean = meanDifference(pixels, expected);
      assert.ok(mean <= MAX_MEAN_DIFFERENCE, `mean difference ${mean.toFixed(2)}`);
    });
  }

  for (const { pattern, width, height, resolution } of golden.bucketed) {
    it(`turns ${width}×${height} upright before it looks for the bucket`, async () => {
      const bytes = await patternPng(pattern, width, height);
      const upright = await decodePicture(bytes, resolution, LOCAL_PICTURE_LIMITS, 'bucket');
      for (const [orientation, angle] of [
        [3, 180],
        [6, 270],
        [8, 90],
      ] as const) {
        const turned = sharp(bytes).rotate(angle).withMetadata({ orientation }).webp({ lossless: true });
        const found = await decodePicture(await turned.toBuffer(), resolution, LOCAL_PICTURE_LIMITS, 'bucket');
        assert.deepEqual(found, upright, `orientation ${orientation}`);
      }
    });
  }
});
