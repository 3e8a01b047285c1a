import type { ResizeMode } from '../../common/types.ts';

/** Width and height of a picture. */
export interface SizePx {
  widthPx: number;
  heightPx: number;
}

/** Sides of buckets are multiples of this: what Stable Diffusion's UNet halves three times in latents of 8 px. */
const STEP_PX = 64;

/**
 * The sizes that pictures may get with `resize_mode` "bucket": for each width the greatest height, and for each height
 * the greatest width, with an area of at most `resolutionPx`². Sides are multiples of 64 px, from half the resolution (at
 * least 64 px) to twice the resolution, which are the 256 to 1024 px of sd-scripts at 512.
 *
 * kohya-ss/sd-scripts 036907ee, library/model_util.py, make_bucket_resolutions.
 *
 * @param resolutionPx - side of the square that no bucket exceeds in area
 * @returns by width, then height
 */
export function bucketSizes(resolutionPx: number): SizePx[] {
  const area = resolutionPx ** 2;
  const min = Math.max(STEP_PX, floorToStep(resolutionPx / 2));
  const max = floorToStep(resolutionPx * 2);
  const square = floorToStep(resolutionPx);
  const sizes = [{ widthPx: square, heightPx: square }];
  for (let side = min; side <= max; side += STEP_PX) {
    const other = Math.min(max, floorToStep(area / side));
    if (other < min) continue;
    sizes.push({ widthPx: side, heightPx: other }, { widthPx: other, heightPx: side });
  }
  const distinct = new Map(sizes.map((size) => [sizeName(size), size]));
  return [...distinct.values()].sort((a, b) => a.widthPx - b.widthPx || a.heightPx - b.heightPx);
}

function floorToStep(sidePx: number): number {
  return Math.floor(sidePx / STEP_PX) * STEP_PX;
}

/**
 * The size in which a picture is trained. A bucket is the one whose aspect ratio is nearest as a ratio, which is the one
 * to whose crop the picture loses least (NovelAI/novelai-aspect-ratio-bucketing 67017f03, assign_buckets; sd-scripts takes
 * differences, by which a picture and the same on its side may get different shapes). No picture is enlarged more than
 * `crop` would: a bucket that is nearer than the square is so narrow that its area bounds the longer side.
 *
 * @param original - upright
 * @param resolutionPx - side of a square training picture
 * @param resizeMode - squares, but for 'bucket'
 */
export function trainedSize(original: SizePx, resolutionPx: number, resizeMode: ResizeMode): SizePx {
  if (resizeMode !== 'bucket') return { widthPx: resolutionPx, heightPx: resolutionPx };
  const buckets = bucketSizes(resolutionPx).map((size) => ({ size, kept: keptShare(original, size) }));
  // Of equals, which a ratio that lies in the middle may have, the first.
  const best = buckets.reduce((found, bucket) => (bucket.kept > found.kept ? bucket : found));
  return best.size;
}

/**
 * Share of a picture's area that is left when it is cropped to the shape of another size.
 *
 * @param original - upright
 * @param target - the shape
 */
export function keptShare(original: SizePx, target: SizePx): number {
  const across = original.widthPx * target.heightPx;
  const down = original.heightPx * target.widthPx;
  return Math.min(across, down) / Math.max(across, down);
}

/**
 * How many times the sides of a picture get longer where it covers a size.
 *
 * @param original - upright
 * @param target - to be covered
 * @returns below 1 where it gets smaller
 */
export function coverScale(original: SizePx, target: SizePx): number {
  return Math.max(target.widthPx / original.widthPx, target.heightPx / original.heightPx);
}

/**
 * How a picture comes to cover a size: resized to `resized`, of which the target begins `left` px from the left and
 * `top` px from the top.
 *
 * @param original - upright
 * @param target - to be covered
 */
export function coveringCrop(original: SizePx, target: SizePx): { resized: SizePx; left: number; top: number } {
  const scale = coverScale(original, target);
  const resized = {
    widthPx: Math.round(original.widthPx * scale),
    heightPx: Math.round(original.heightPx * scale),
  };
  // The odd pixel goes to the same end as where libvips crops.
  const before = (resizedPx: number, targetPx: number) => Math.floor((resizedPx - targetPx + 1) / 2);
  return {
    resized,
    left: before(resized.widthPx, target.widthPx),
    top: before(resized.heightPx, target.heightPx),
  };
}

/**
 * How many pictures are trained in each size.
 *
 * @param sizes - of all pictures
 * @returns the sizes that occur, by width, then height
 */
export function countBySize(sizes: readonly SizePx[]): { size: SizePx; count: number }[] {
  return [...Map.groupBy(sizes, sizeName).values()]
    .flatMap((group) => group.slice(0, 1).map((size) => ({ size, count: group.length })))
    .sort((a, b) => a.size.widthPx - b.size.widthPx || a.size.heightPx - b.size.heightPx);
}

/**
 * Micro-steps of an epoch: a batch holds pictures of one size only, and each size has a short last one.
 *
 * @param sizes - in which the pictures are trained, see {@link trainedSize}
 * @param config - of the training
 */
export function stepsPerEpoch(
  sizes: readonly SizePx[],
  { repeats, batchSize }: { repeats: number; batchSize: number },
): number {
  return countBySize(sizes).reduce((steps, { count }) => steps + Math.ceil((count * repeats) / batchSize), 0);
}

/** For people, e.g. `512×768`. */
export function sizeName({ widthPx, heightPx }: SizePx): string {
  return `${widthPx}×${heightPx}`;
}
