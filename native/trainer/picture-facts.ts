import sharp from 'sharp';
import type { Metadata, Sharp } from 'sharp';
import type { ResizeMode } from '../../common/types.ts';
import { type SizePx, coverScale, keptShare, sizeName, trainedSize } from './aspect-buckets.ts';
import {
  JOB_PICTURE_LIMITS,
  LOCAL_PICTURE_LIMITS,
  PictureFault,
  type PictureFormat,
  type PictureLimits,
  decodeThumbnail,
  formatOf,
  openPicture,
  sideFault,
  sizeFault,
  uprightSize,
} from './picture.ts';

/** What is going to be done with pictures. */
export interface PicturePlan {
  /** Side of a square training picture. */
  resolutionPx: number;
  resizeMode: ResizeMode;
  /** What is refused. */
  limits: PictureLimits;
}

/** What one picture is, and what becomes of it. */
export interface PictureFacts {
  /** Null where even that can't be told. */
  format: PictureFormat | null;
  /** Upright, before resizing; null where it can't be told. */
  widthPx: number | null;
  heightPx: number | null;
  /** In which it is trained; null where that can't be told. */
  trainedSize: SizePx | null;
  /** e.g. `RGB`, `CMYK, ICC profile`, `grey, 16 bits, alpha`; null where it can't be told. */
  colours: string | null;
  /** What is done to it on the way to a training picture, in order. */
  done: string[];
  /** Why it can't be used. */
  faults: string[];
  /** Why the training may not like it. */
  doubts: string[];
  /** 16 hex digits that pictures which look alike share, or nearly; null for one of (nearly) one colour. */
  perceptualHash: string | null;
}

/** A picture is looked at in this size. */
const THUMBNAIL_PX = 64;

/** A picture whose thumbnail's standard deviation is lower, of 255, shows nothing. */
const MIN_CONTRAST = 3;

/** Below this share of the picture, what the crop keeps is worth a word. */
const MIN_KEPT_SHARE = 0.6;

/** Enlarging by less is not seen. */
const MAX_ENLARGEMENT = 1.1;

/** Above this, the longer side is squeezed so much that shapes change. */
const MAX_DISTORTION = 1.5;

/**
 * Looks at one picture: decodes all of it, refuses nothing by an exception.
 *
 * @param bytes - content of the file
 * @param plan - what is going to be done with it
 */
export async function inspectPicture(bytes: Uint8Array, plan: PicturePlan): Promise<PictureFacts> {
  const facts: PictureFacts = {
    format: null,
    widthPx: null,
    heightPx: null,
    trainedSize: null,
    colours: null,
    done: [],
    faults: faultsOf(sizeFault(bytes.length, plan.limits)),
    doubts: serviceDoubts(plan, sizeFault(bytes.length, JOB_PICTURE_LIMITS)),
    perceptualHash: null,
  };
  try {
    const { metadata } = await openPicture(bytes, LOCAL_PICTURE_LIMITS);
    const size = uprightSize(metadata);
    const { widthPx, heightPx } = size;
    const target = trainedSize(size, plan.resolutionPx, plan.resizeMode);
    Object.assign(facts, { format: formatOf(bytes), ...size, trainedSize: target, colours: coloursOf(metadata) });
    facts.faults.push(...faultsOf(sideFault(widthPx, heightPx, plan.limits)));
    facts.doubts.push(...serviceDoubts(plan, sideFault(widthPx, heightPx, JOB_PICTURE_LIMITS)));
    const thumbnail = await decodeThumbnail(bytes, THUMBNAIL_PX);
    facts.done.push(...conversions(metadata), ...resizing(size, target, plan.resizeMode));
    facts.doubts.push(...shapeDoubts(size, target, plan.resizeMode));
    const grey = sharp(thumbnail.pixels, { raw: { width: THUMBNAIL_PX, height: THUMBNAIL_PX, channels: 3 } });
    if ((await contrastOf(grey)) < MIN_CONTRAST) facts.doubts.push('is of nearly one colour');
    else facts.perceptualHash = await differenceHash(grey);
  } catch (error) {
    if (!(error instanceof PictureFault)) throw error;
    if (!facts.faults.includes(error.message)) facts.faults.push(error.message);
  }
  return facts;
}

/** What can be told from the start of a file. */
export type HeadFacts = Pick<PictureFacts, 'format' | 'widthPx' | 'heightPx' | 'colours'>;

/**
 * Looks at what a file begins with: of most pictures that shows all but the pixels.
 *
 * @param start - its first bytes
 */
export async function headFacts(start: Uint8Array): Promise<HeadFacts> {
  try {
    const { metadata } = await openPicture(start, LOCAL_PICTURE_LIMITS);
    return { format: formatOf(start), ...uprightSize(metadata), colours: coloursOf(metadata) };
  } catch (error) {
    if (!(error instanceof PictureFault)) throw error;
    return { format: formatOf(start), widthPx: null, heightPx: null, colours: null };
  }
}

function faultsOf(fault: string | null): string[] {
  return fault === null ? [] : [fault];
}

/** What the service's own limits say, where others count. */
function serviceDoubts({ limits }: PicturePlan, fault: string | null): string[] {
  return fault === null || limits === JOB_PICTURE_LIMITS ? [] : [`would be refused by the service: it ${fault}`];
}

function coloursOf({ space, depth, hasAlpha, hasProfile, isPalette }: Metadata): string {
  const kind = isPalette ? 'palette' : isGrey(space) ? 'grey' : space === 'cmyk' ? 'CMYK' : 'RGB';
  return [
    kind,
    ...(depth === 'ushort' ? ['16 bits'] : []),
    ...(hasAlpha ? ['alpha'] : []),
    ...(hasProfile ? ['ICC profile'] : []),
  ].join(', ');
}

function isGrey(space: Metadata['space']): boolean {
  return space === 'b-w' || space === 'grey16';
}

function conversions({ orientation = 1, pages = 1, depth, hasProfile, space, hasAlpha }: Metadata): string[] {
  return [
    ...(pages > 1 ? [`first of ${pages} frames taken`] : []),
    ...(orientation > 1 ? [`turned upright (EXIF orientation ${orientation})`] : []),
    ...(depth === 'ushort' ? ['16 bits made 8'] : []),
    ...(hasProfile ? ['ICC profile made sRGB'] : space === 'cmyk' ? ['CMYK without profile made sRGB'] : []),
    ...(isGrey(space) ? ['grey made RGB'] : []),
    ...(hasAlpha ? ['transparency put on white'] : []),
  ];
}

function resizing(original: SizePx, target: SizePx, resizeMode: ResizeMode): string[] {
  const before = resizeMode === 'stretch' ? original : middleOf(original, target);
  const kept = keptShare(original, target);
  const lost = resizeMode === 'bucket' ? `, ${percent(1 - kept)} lost` : '';
  const isCut = sizeName(before) !== sizeName(original);
  const cut = isCut ? [`cut to the middle ${sizeName(before)}${lost}`] : [];
  if (sizeName(before) === sizeName(target)) return cut;
  const isBent = resizeMode === 'stretch' && kept < 1;
  const verb = isBent ? 'stretched' : coverScale(before, target) > 1 ? 'enlarged' : 'reduced';
  return [...cut, `${verb} to ${sizeName(target)}`];
}

/** What the crop leaves of a picture, in pixels of the original. */
function middleOf(original: SizePx, target: SizePx): SizePx {
  const scale = coverScale(original, target);
  return { widthPx: Math.round(target.widthPx / scale), heightPx: Math.round(target.heightPx / scale) };
}

/** One digit where it is little. */
function percent(share: number): string {
  const count = share * 100;
  return `${count.toFixed(count < 9.5 ? 1 : 0)} %`;
}

function shapeDoubts(original: SizePx, target: SizePx, resizeMode: ResizeMode): string[] {
  const scale = coverScale(original, target);
  const kept = keptShare(original, target);
  const doubts: string[] = [];
  if (scale > MAX_ENLARGEMENT) {
    doubts.push(`is enlarged ${scale.toFixed(1)} times and will look soft: use a bigger original`);
  }
  if (resizeMode !== 'stretch' && kept < MIN_KEPT_SHARE) {
    const other = resizeMode === 'crop' ? ', or use "bucket" or "stretch"' : '';
    doubts.push(`loses ${Math.round((1 - kept) * 100)} % to the crop: cut it by hand${other}`);
  }
  if (resizeMode === 'stretch' && 1 / kept > MAX_DISTORTION) {
    doubts.push(
      `is squeezed ${(1 / kept).toFixed(1)} times in one direction: cut it by hand, or use "crop" or "bucket"`,
    );
  }
  return doubts;
}

/** Standard deviation of its brightness, of 255. */
async function contrastOf(image: Sharp): Promise<number> {
  const { channels } = await image.clone().greyscale().stats();
  return channels[0]?.stdev ?? 0;
}

/**
 * dHash: whether each of 8×8 places is brighter than its right neighbour.
 * http://www.hackerfactor.com/blog/index.php?/archives/529-Kind-of-Like-That.html
 */
async function differenceHash(image: Sharp): Promise<string> {
  const places = await image.clone().greyscale().resize(9, 8, { fit: 'fill' }).raw().toBuffer();
  let bits = 0n;
  for (let y = 0; y < 8; y++) {
    for (let x = 0; x < 8; x++) {
      const [left = 0, right = 0] = places.subarray(y * 9 + x);
      bits = (bits << 1n) | (left > right ? 1n : 0n);
    }
  }
  return bits.toString(16).padStart(16, '0');
}

/**
 * How different two pictures look.
 *
 * @param a - perceptual hash
 * @param b - perceptual hash
 * @returns differing bits, 0 to 64
 */
export function hashDistance(a: string, b: string): number {
  let differing = BigInt(`0x${a}`) ^ BigInt(`0x${b}`);
  let count = 0;
  for (; differing > 0n; differing &= differing - 1n) count += 1;
  return count;
}
