/** An RGB picture, 8 bit, row by row. */
interface RgbPicture {
  widthPx: number;
  heightPx: number;
  pixels: Uint8Array;
}

/** Weights of the source pixels that make one target pixel, in units of 2^-22. */
interface Tap {
  first: number;
  weights: Int32Array;
}

/** Lanczos3 looks at three source pixels on each side. */
const SUPPORT_PX = 3;
const PRECISION_BITS = 22;

/**
 * Enlarges a picture until its short side has `sidePx`, and cuts out the centre square: Lanczos3 as Pillow does it
 * (src/libImaging/Resample.c of Pillow 13.0.0, the 8-bit path). libvips, which resizes everything else, enlarges with
 * cubic curves and moves the picture by up to half a pixel.
 *
 * @param picture - with a short side of at most `sidePx`
 * @param sidePx - side of the square
 * @returns `sidePx` × `sidePx` × 3 bytes
 */
export function enlargeToSquare(picture: RgbPicture, sidePx: number): Uint8Array {
  const { widthPx, heightPx, pixels } = picture;
  const scale = sidePx / Math.min(widthPx, heightPx);
  const columns = tapsOf(widthPx, Math.round(widthPx * scale), sidePx);
  const rows = tapsOf(heightPx, Math.round(heightPx * scale), sidePx);
  // Only what the square needs: a strip of one pixel's width may be a million pixels long.
  const top = rows[0]?.first ?? 0;
  const bottom = Math.max(...rows.map(({ first, weights }) => first + weights.length));
  const wide = new Uint8Array(sidePx * (bottom - top) * 3);
  for (let y = top; y < bottom; y++) {
    const line = (y - top) * sidePx;
    columns.forEach((tap, x) => blend(pixels, (y * widthPx + tap.first) * 3, 3, tap, wide, (line + x) * 3));
  }
  const square = new Uint8Array(sidePx * sidePx * 3);
  const stride = sidePx * 3;
  rows.forEach((tap, y) => {
    for (let x = 0; x < sidePx; x++) {
      blend(wide, (tap.first - top) * stride + x * 3, stride, tap, square, y * stride + x * 3);
    }
  });
  return square;
}

/** Taps of the `count` middle pixels of a line that grows from `sourcePx` to `targetPx`. */
function tapsOf(sourcePx: number, targetPx: number, count: number): Tap[] {
  // The odd pixel goes to the same end as where libvips crops.
  const offset = Math.floor((targetPx - count + 1) / 2);
  return Array.from({ length: count }, (_, i) => {
    const center = ((offset + i + 0.5) * sourcePx) / targetPx;
    const first = Math.max(0, Math.trunc(center - SUPPORT_PX + 0.5));
    const end = Math.min(sourcePx, Math.trunc(center + SUPPORT_PX + 0.5));
    const raw = Array.from({ length: end - first }, (_, k) => lanczos(first + k - center + 0.5));
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
function blend(source: Uint8Array, start: number, step: number, tap: Tap, target: Uint8Array, at: number): void {
  for (let channel = 0; channel < 3; channel++) {
    let sum = 2 ** (PRECISION_BITS - 1);
    for (let k = 0; k < tap.weights.length; k++) {
      sum += (source[start + k * step + channel] ?? 0) * (tap.weights[k] ?? 0);
    }
    target[at + channel] = Math.min(255, Math.max(0, sum >> PRECISION_BITS));
  }
}
