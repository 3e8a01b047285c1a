import { readFile, stat } from 'node:fs/promises';
import sharp from 'sharp';
import type { Metadata, Sharp } from 'sharp';
import type { ResizeMode } from '../../common/types.ts';
import { writeAtomically } from '../../common/write-atomically.ts';
import { type SizePx, coverScale, coveringCrop, trainedSize } from './aspect-buckets.ts';
import { cropToSize, stretchToSquare } from './resample.ts';

/** What a picture may be before it is decoded at all. */
export interface PictureLimits {
  maxBytes: number;
  /** Of the shorter side, before any resizing. */
  minSidePx: number;
}

/** Limits of a job's pictures: each side at least 256 px, at most 10 MB. */
export const JOB_PICTURE_LIMITS: PictureLimits = { maxBytes: 10 * 2 ** 20, minSidePx: 256 };

/** Limits where people try things out on their own disk: only what could exhaust the machine is refused. */
export const LOCAL_PICTURE_LIMITS: PictureLimits = { maxBytes: 100 * 2 ** 20, minSidePx: 1 };

/** Decoding more pixels than this is refused: a small file can unpack to gigabytes. */
const MAX_PIXEL_COUNT = 100_000_000;

/** A decoded training picture: sRGB, 8 bit, RGB row by row. */
export interface DecodedPicture extends SizePx {
  pixels: Uint8Array;
}

/** What is wrong with one picture, in words that follow its name: "is not a JPEG, PNG or WebP". */
export class PictureFault extends Error {}

/**
 * Decodes a picture as the trainer sees it: EXIF orientation applied, transparency on white, any colour space, depth and
 * ICC profile turned into 8-bit sRGB, resized by Lanczos3. Equal bytes give equal pixels.
 *
 * @param bytes - content of a JPEG, PNG or WebP file (of an animation, the first frame)
 * @param resolutionPx - side of a square training picture
 * @param limits - what to refuse
 * @param resizeMode - 'crop' resizes the short side and cuts out the centre square, 'stretch' resizes each side by itself,
 *   'bucket' resizes until the picture's bucket is covered and cuts out its middle
 * @throws PictureFault when it can't be decoded or breaks a limit
 */
export async function decodePicture(
  bytes: Uint8Array,
  resolutionPx: number,
  limits: PictureLimits,
  resizeMode: ResizeMode = 'crop',
): Promise<DecodedPicture> {
  const { image, metadata } = await openPicture(bytes, limits);
  const original = uprightSize(metadata);
  const target = trainedSize(original, resolutionPx, resizeMode);
  const upright = toSrgb(image, metadata);
  const byLibvips = suitsLibvips(original, target, resizeMode);
  try {
    const sized = byLibvips ? shrink(upright, original, target, resizeMode) : upright;
    const { data, info } = await sized.toBuffer({ resolveWithObject: true });
    const pixels = new Uint8Array(data.buffer, data.byteOffset, data.length);
    const decoded = { widthPx: info.width, heightPx: info.height, pixels };
    if (byLibvips) return decoded;
    const resized = resizeMode === 'stretch' ? stretchToSquare(decoded, resolutionPx) : cropToSize(decoded, target);
    return { ...target, pixels: resized };
  } catch (error) {
    throw undecodable(error);
  }
}

/**
 * Decodes all of a picture, like {@link decodePicture}, but resizes it quickly: to look at, not to train on.
 *
 * @param bytes - content of a JPEG, PNG or WebP file
 * @param sidePx - of the square that the whole picture is stretched to
 * @throws PictureFault when it can't be decoded
 */
export async function decodeThumbnail(bytes: Uint8Array, sidePx: number): Promise<DecodedPicture> {
  const { image, metadata } = await openPicture(bytes, LOCAL_PICTURE_LIMITS);
  try {
    const square = { widthPx: sidePx, heightPx: sidePx };
    const pixels = await lanczos(toSrgb(image, metadata), square, 'fill').toBuffer();
    return { ...square, pixels };
  } catch (error) {
    throw undecodable(error);
  }
}

/**
 * Reads the head of a picture and checks its limits; its pixels may still turn out damaged.
 *
 * @param bytes - content of the file
 * @param limits - what to refuse
 * @returns what its head says, and a pipeline that begins with it
 * @throws PictureFault when it is none or breaks a limit
 */
export async function openPicture(
  bytes: Uint8Array,
  limits: PictureLimits,
): Promise<{ image: Sharp; metadata: Metadata }> {
  const tooBig = sizeFault(bytes.length, limits);
  if (tooBig !== null) throw new PictureFault(tooBig);
  if (formatOf(bytes) === null) throw new PictureFault('is not a JPEG, PNG or WebP');
  const image = sharp(bytes, { failOn: 'error', limitInputPixels: MAX_PIXEL_COUNT, pages: 1 });
  const metadata = await image.metadata().catch((error: unknown) => {
    throw undecodable(error);
  });
  const tooSmall = sideFault(metadata.width, metadata.height, limits);
  if (tooSmall !== null) throw new PictureFault(tooSmall);
  return { image, metadata };
}

/**
 * Whether a file is bigger than allowed.
 *
 * @param sizeBytes - of the file
 * @param limits - what to refuse
 * @returns what is wrong, or null
 */
export function sizeFault(sizeBytes: number, limits: PictureLimits): string | null {
  if (sizeBytes <= limits.maxBytes) return null;
  return `has ${megabytes(sizeBytes)}, more than the ${megabytes(limits.maxBytes)} allowed`;
}

/**
 * Reads a picture's file.
 *
 * @param file - path
 * @throws PictureFault when it is a pipe or a device, which might never come to an end
 */
export async function readPictureFile(file: string): Promise<Buffer> {
  const found = await stat(file);
  if (!found.isFile() && !found.isDirectory()) throw new PictureFault('is not a regular file');
  return readFile(file);
}

/**
 * What is wrong with a file of which nobody knows how much bigger it is than allowed.
 *
 * @param limits - what to refuse
 */
export function unknownSizeFault(limits: PictureLimits): string {
  return `has more than the ${megabytes(limits.maxBytes)} allowed`;
}

/**
 * Whether a picture has fewer pixels than allowed.
 *
 * @param widthPx - of the picture
 * @param heightPx - of the picture
 * @param limits - what to refuse
 * @returns what is wrong, or null
 */
export function sideFault(widthPx: number, heightPx: number, limits: PictureLimits): string | null {
  if (Math.min(widthPx, heightPx) >= limits.minSidePx) return null;
  return `is ${widthPx}×${heightPx} px: each side needs at least ${limits.minSidePx} px`;
}

/**
 * Size of a picture after its EXIF orientation was applied.
 *
 * @param metadata - as its head says
 */
export function uprightSize({ autoOrient }: Metadata): SizePx {
  return { widthPx: autoOrient.width, heightPx: autoOrient.height };
}

function toSrgb(image: Sharp, { depth, hasProfile, channels }: Metadata): Sharp {
  // libvips would turn 16 bits with a profile into Display P3, and leave grey ones as they are.
  if (hasProfile && depth === 'ushort') image.pipelineColourspace(channels < 3 ? 'b-w' : 'srgb');
  return image.autoOrient().flatten({ background: '#ffffff' }).toColourspace('srgb').raw({ depth: 'uchar' });
}

/**
 * Whether libvips resizes as Pillow does: it enlarges with cubic curves and moves the picture by up to half a pixel, and
 * begins with plain averages where a side becomes a quarter or less.
 */
function suitsLibvips(original: SizePx, target: SizePx, resizeMode: ResizeMode): boolean {
  const scales =
    resizeMode === 'stretch'
      ? [target.widthPx / original.widthPx, target.heightPx / original.heightPx]
      : [coverScale(original, target)];
  return scales.every((scale) => scale <= 1 && scale > 1 / 4);
}

function shrink(image: Sharp, original: SizePx, target: SizePx, resizeMode: ResizeMode): Sharp {
  if (resizeMode !== 'bucket') return lanczos(image, target, resizeMode === 'crop' ? 'cover' : 'fill');
  // libvips' own 'cover' does not round the side that is cropped, by which it drifts from Pillow's pixels.
  const { resized, left, top } = coveringCrop(original, target);
  return lanczos(image, resized, 'fill').extract({ left, top, width: target.widthPx, height: target.heightPx });
}

/** libvips' Lanczos3, without the decoder's own shortcuts: they differ from format to format. */
function lanczos(image: Sharp, { widthPx, heightPx }: SizePx, fit: 'cover' | 'fill'): Sharp {
  return image.resize({
    width: widthPx,
    height: heightPx,
    fit,
    position: 'centre',
    kernel: 'lanczos3',
    fastShrinkOnLoad: false,
  });
}

function undecodable(error: unknown): PictureFault {
  return new PictureFault(`can't be decoded (${reasonOf(error)})`, { cause: error });
}

/** Formats that pictures may have. */
export type PictureFormat = 'jpeg' | 'png' | 'webp';

/**
 * Looks at the first bytes, so that no other decoder (SVG, TIFF, …) is ever reached by a customer's file.
 *
 * @param bytes - a file, or its first 12 bytes
 * @returns null for any other format
 */
export function formatOf(bytes: Uint8Array): PictureFormat | null {
  const head = Buffer.from(bytes.subarray(0, 12)).toString('latin1');
  if (head.startsWith('\xff\xd8\xff')) return 'jpeg';
  if (head.startsWith('\x89PNG\r\n\x1a\n')) return 'png';
  return head.startsWith('RIFF') && head.slice(8, 12) === 'WEBP' ? 'webp' : null;
}

/** First line of libvips' words, without the names of its functions. */
function reasonOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const firstLine = message.split('\n', 1)[0] ?? '';
  return firstLine.replaceAll(/Input buffer |\b(VipsJpeg|vipspng|webp|pngload\w*): /gi, '').trim();
}

function megabytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

/**
 * Writes a picture as PNG, atomically.
 *
 * @param picture - RGB, 8 bit
 * @param file - to write
 */
export async function writePng(picture: DecodedPicture, file: string): Promise<void> {
  const raw = { width: picture.widthPx, height: picture.heightPx, channels: 3 as const };
  await writeAtomically(file, await sharp(picture.pixels, { raw }).png().toBuffer());
}
