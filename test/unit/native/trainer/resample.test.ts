import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { ResizeMode } from '../../../../common/types.ts';
import { LOCAL_PICTURE_LIMITS, decodePicture } from '../../../../native/trainer/picture.ts';
import { cropToSquare, stretchToSquare } from '../../../../native/trainer/resample.ts';
import { type Pattern, patternPng } from './support/patterns.ts';

const GOLDEN_FILE = path.join(import.meta.dirname, '../../../reference/resample_golden.json');

/** Mean difference that resizing may have from Pillow's, of 255. */
const MAX_MEAN_DIFFERENCE = 2;

interface Resampled {
  width: number;
  height: number;
  side: number;
  pixels: string;
  expected: string;
}

interface Decoded extends Omit<Resampled, 'pixels'> {
  pattern: Pattern;
  mode: ResizeMode;
}

const golden = JSON.parse(readFileSync(GOLDEN_FILE, 'utf8')) as {
  cropped: Resampled[];
  stretched: Resampled[];
  decoded: Decoded[];
};

for (const [name, resize, cases] of [
  ['cropToSquare', cropToSquare, golden.cropped],
  ['stretchToSquare', stretchToSquare, golden.stretched],
] as const) {
  describe(name, () => {
    for (const { width, height, side, pixels, expected } of cases) {
      it(`equals Pillow's Lanczos from ${width}×${height} to ${side} px`, () => {
        const picture = { widthPx: width, heightPx: height, pixels: Buffer.from(pixels, 'base64') };
        assert.deepEqual(Buffer.from(resize(picture, side)), Buffer.from(expected, 'base64'));
      });
    }
  });
}

describe('cropToSquare', () => {
  it('needs little memory for a strip that would become endless', () => {
    const heightPx = 3_000_000;
    const picture = { widthPx: 1, heightPx, pixels: new Uint8Array(heightPx * 3).fill(70) };
    assert.ok(cropToSquare(picture, 512).every((value) => value === 70));
  });
});

describe('decodePicture, resizing', () => {
  for (const { pattern, width, height, mode, side, expected } of golden.decoded) {
    it(`is near Pillow's Lanczos: ${pattern}, ${mode} from ${width}×${height} to ${side} px`, async () => {
      const bytes = await patternPng(pattern, width, height);
      const { pixels } = await decodePicture(bytes, side, LOCAL_PICTURE_LIMITS, mode);
      const wanted = Buffer.from(expected, 'base64');
      assert.equal(pixels.length, wanted.length);
      const sum = pixels.reduce((total, value, index) => total + Math.abs(value - (wanted[index] ?? 0)), 0);
      const mean = sum / pixels.length;
      assert.ok(mean <= MAX_MEAN_DIFFERENCE, `mean difference ${mean.toFixed(2)}`);
    });
  }
});
