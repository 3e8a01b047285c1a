import { type SizePx, coveringCrop } from './aspect-buckets.ts';

/** An RGB picture, 8 bit, row by row. */
interface RgbPicture extends SizePx {
  pixels: Uint8Array;
}

/** Weights of the source pixels that make one target pixel, in units of 2^-22. */
interface Tap {
  first: number;
  weights: Int32Array;
}

/** Lanczos3 looks at three pixels on each side. */
const SUPPORT_PX = 3;
const PRECISION_BITS = 22;
const HALF = 2 ** (PRECISION_BITS - 1);

/** One direction of a picture: `sourcePx` become `targetPx`, of which `count` from the `offset`-th on are wanted. */
interface Axis {
  sourcePx: number;
  targetPx: number;
  offset: number;
  count: number;
}

/**
 * Resizes a picture until it just covers a size, and cuts out the middle: Lanczos3 as Pillow does it.
 *
 * @param picture - of any size
 * @param target - what is left of it
 * @returns RGB, row by row
 */
export function cropToSize(picture: RgbPicture, target: SizePx): Uint8Array {
  const { resized, left, top } = coveringCrop(picture, target);
  return resample(
    picture,
    { sourcePx: picture.widthPx, targetPx: resized.widthPx, offset: left, count: target.widthPx },
    { sourcePx: picture.heightPx, targetPx: resized.heightPx, offset: top, count: target.heightPx },
  );
}

/**
 * Stretches or squeezes a whole picture into a square, each direction by itself: Lanczos3 as Pillow does it.
 *
 * @param picture - of any size
 * @param sidePx - side of the square
 * @returns `sidePx` × `sidePx` × 3 bytes
 */
export function stretchToSquare(picture: RgbPicture, sidePx: number): Uint8Array {
  const whole = (sourcePx: number): Axis => ({ sourcePx, targetPx: sidePx, offset: 0, count: sidePx });
  return resample(picture, whole(picture.widthPx), whole(picture.heightPx));
}

/**
 * The 8-bit path of src/libImaging/Resample.c of Pillow 13.0.0: across, rounded to bytes, then down. (Where the height
 * shrinks much more than the width, Pillow goes down first: then the last digits differ.)
 */
function resample({ widthPx, pixels }: RgbPicture, across: Axis, down: Axis): Uint8Array {
  const columns = tapsOf(across);
  const rows = tapsOf(down);
  // Only what the result needs: a strip of one pixel's width may be a million pixels long.
  const top = rows[0]?.first ?? 0;
  const bottom = Math.max(...rows.map(({ first, weights }) => first + weights.length));
  const stride = across.count * 3;
  const narrow = new Uint8Array(stride * (bottom - top));
  for (let y = top; y < bottom; y++) {
    const line = (y - top) * stride;
    columns.forEach((tap, x) => blend(pixels, (y * widthPx + tap.first) * 3, 3, tap, narrow, line + x * 3));
  }
  const result = new Uint8Array(stride * down.count);
  rows.forEach((tap, y) => {
    for (let x = 0; x < across.count; x++) {
      blend(narrow, (tap.first - top) * stride + x * 3, stride, tap, result, y * stride + x * 3);
    }
  });
  return result;
}

/** Pillow's `precompute_coeffs` and `normalize_coeffs_8bpc`. */
function tapsOf({ sourcePx, targetPx, offset, count }: Axis): Tap[] {
  // A picture that shrinks is looked at through a wider window.
  const stretch = Math.max(1, sourcePx / targetPx);
  const support = SUPPORT_PX * stretch;
  return Array.from({ length: count }, (_, i) => {
    const center = ((offset + i + 0.5) * sourcePx) / targetPx;
    const first = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(sourcePx, Math.trunc(center + support + 0.5));
    const raw = Array.from({ length: end - first }, (_, k) => lanczos((first + k - center + 0.5) / stretch));
    const sum = raw.reduce((total, weight) => total + weight, 0);
    return {
      first,
      weights: Int32Array.from(raw, (weight) => roundAwayFromZero((weight / sum) * 2 ** PRECISION_BITS)),
    };
  });
}

function roundAwayFromZero(value: number): number {
  return Math.trunc(value < 0 ? value - 0.5 : value + 0.5);
}

function lanczos(x: number): number {
  return Math.abs(x) < SUPPORT_PX ? sinc(x) * sinc(x / SUPPORT_PX) : 0;
}

function sinc(x: number): number {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

/** Writes the weighted sum of pixels that lie `step` bytes apart. */
function blend(
  source: Uint8Array,
  start: number,
  step: number,
  { weights }: Tap,
  target: Uint8Array,
  at: number,
): void {
  let red = HALF;
  let green = HALF;
  let blue = HALF;
  for (let k = 0, place = start; k < weights.length; k++, place += step) {
    const weight = weights[k] ?? 0;
    red += (source[place] ?? 0) * weight;
    green += (source[place + 1] ?? 0) * weight;
    blue += (source[place + 2] ?? 0) * weight;
  }
  target[at] = clipped(red);
  target[at + 1] = clipped(green);
  target[at + 2] = clipped(blue);
}

function clipped(sum: number): number {
  return Math.min(255, Math.max(0, sum >> PRECISION_BITS));
}
