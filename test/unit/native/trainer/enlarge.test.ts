import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { enlargeToSquare } from '../../../../native/trainer/enlarge.ts';

const GOLDEN_FILE = path.join(import.meta.dirname, '../../../reference/enlarge_golden.json');

interface GoldenCase {
  width: number;
  height: number;
  side: number;
  pixels: string;
  expected: string;
}

describe('enlargeToSquare', () => {
  const cases = JSON.parse(readFileSync(GOLDEN_FILE, 'utf8')) as GoldenCase[];

  for (const { width, height, side, pixels, expected } of cases) {
    it(`equals Pillow's Lanczos from ${width}×${height} to ${side} px`, () => {
      const picture = { widthPx: width, heightPx: height, pixels: Buffer.from(pixels, 'base64') };
      assert.deepEqual(Buffer.from(enlargeToSquare(picture, side)), Buffer.from(expected, 'base64'));
    });
  }

  it('needs little memory for a strip that would become endless', () => {
    const heightPx = 3_000_000;
    const picture = { widthPx: 1, heightPx, pixels: new Uint8Array(heightPx * 3).fill(70) };
    assert.ok(enlargeToSquare(picture, 512).every((value) => value === 70));
  });
});
