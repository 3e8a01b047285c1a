import { rename, writeFile } from 'node:fs/promises';
import sharp from 'sharp';
import type { Sharp } from 'sharp';
import { enlargeToSquare } from './enlarge.ts';

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
export interface DecodedPicture {
  widthPx: number;
  heightPx: number;
  pixels: Uint8Array;
}

/** What is wrong with one picture, in words that follow its name: "is not a JPEG, PNG or WebP". */
export class PictureFault extends Error {}

/**
 * Decodes a picture as the trainer sees it: EXIF orientation applied, transparency on white, any colour space, depth and
 * ICC profile turned into 8-bit sRGB, the short side resized to `sidePx` (Lanczos3) and the centre square cut out.
 * Equal bytes give equal pixels.
 *
 * @param bytes - content of a JPEG, PNG or WebP file (of an animation, the first frame)
 * @param sidePx - side of the square
 * @param limits - what to refuse
 * @throws PictureFault when it can't be decoded or breaks a limit
 */
export async function decodePicture(bytes: Uint8Array, sidePx: number, limits: PictureLimits): Promise<DecodedPicture> {
  if (bytes.length > limits.maxBytes) {
    throw new PictureFault(`has ${megabytes(bytes.length)}, more than the ${megabytes(limits.maxBytes)} allowed`);
  }
  if (!hasKnownSignature(bytes)) throw new PictureFault('is not a JPEG, PNG or WebP');
  try {
    const image = sharp(bytes, { failOn: 'error', limitInputPixels: MAX_PIXEL_COUNT, pages: 1 });
    const { width, height } = await image.metadata();
    if (Math.min(width, height) < limits.minSidePx) {
      throw new PictureFault(`is ${width}×${height} px: each side needs at least ${limits.minSidePx} px`);
    }
    const upright = image.autoOrient().flatten({ background: '#ffffff' }).toColourspace('srgb').raw({ depth: 'uchar' });
    const isSmall = Math.min(width, height) < sidePx;
    const sized = isSmall ? upright : shrinkToSquare(upright, sidePx);
    const { data, info } = await sized.toBuffer({ resolveWithObject: true });
    const pixels = new Uint8Array(data.buffer, data.byteOffset, data.length);
    const decoded = { widthPx: info.width, heightPx: info.height, pixels };
    if (!isSmall) return decoded;
    return { widthPx: sidePx, heightPx: sidePx, pixels: enlargeToSquare(decoded, sidePx) };
  } catch (error) {
    if (error instanceof PictureFault) throw error;
    throw new PictureFault(`can't be decoded (${reasonOf(error)})`, { cause: error });
  }
}

/** libvips' Lanczos3, without the decoder's own shortcuts: they differ from format to format. */
function shrinkToSquare(image: Sharp, sidePx: number): Sharp {
  return image.resize({
    width: sidePx,
    height: sidePx,
    fit: 'cover',
    position: 'centre',
    kernel: 'lanczos3',
    fastShrinkOnLoad: false,
  });
}

/** Looks at the first bytes so that no other decoder (SVG, TIFF, …) is ever reached by a customer's file. */
function hasKnownSignature(bytes: Uint8Array): boolean {
  const head = Buffer.from(bytes.subarray(0, 12)).toString('latin1');
  const isWebp = head.startsWith('RIFF') && head.slice(8, 12) === 'WEBP';
  return head.startsWith('\xff\xd8\xff') || head.startsWith('\x89PNG\r\n\x1a\n') || isWebp;
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
  const temporary = `${file}.${process.pid}.part`;
  await writeFile(temporary, await sharp(picture.pixels, { raw }).png().toBuffer());
  await rename(temporary, file);
}
