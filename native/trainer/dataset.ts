import { readFile, readdir } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { ImageInvalidError, TooFewImagesError } from '../../common/errors.ts';
import {
  type DecodedPicture,
  LOCAL_PICTURE_LIMITS,
  PictureFault,
  type PictureLimits,
  decodePicture,
} from './picture.ts';

const PICTURE_EXTENSIONS = new Set(['.jpg', '.jpeg', '.png', '.webp']);

/** Whether a file's name is one of a picture that can be trained on. */
export function hasPictureExtension(name: string): boolean {
  return PICTURE_EXTENSIONS.has(extname(name).toLowerCase());
}

/** A caption longer than this is no caption: the text encoder reads 75 tokens. */
const MAX_CAPTION_BYTES = 64 * 1024;

/** Pictures decoded at the same time: libuv has four threads. */
const DECODE_CONCURRENCY = 4;

/** One training picture with its caption. */
export interface TrainingPicture extends DecodedPicture {
  /** File name: the recipe sorts pictures by it. */
  name: string;
  caption: string;
  /** True when the caption is the picture's own, false when it is the fallback. */
  hasOwnCaption: boolean;
}

/** How {@link readDataset} reads a directory. */
export interface DatasetOptions {
  /** Caption of a picture without a `.txt` file or with an empty one. */
  fallbackCaption: string;
  /** Side of the square training pictures. */
  resolutionPx: number;
  /** What to refuse; default: {@link LOCAL_PICTURE_LIMITS}. */
  limits?: PictureLimits;
}

/**
 * Names of the pictures in a directory (`.jpg`, `.jpeg`, `.png`, `.webp`, any case; hidden files are none), sorted by
 * code point as the recipe wants.
 *
 * @param directory - of pictures
 * @throws ImageInvalidError when the directory can't be read
 */
export async function listPictures(directory: string): Promise<string[]> {
  let names: string[];
  try {
    names = await readdir(directory);
  } catch (error) {
    throw new ImageInvalidError(`The image directory ${directory} can't be read: does it exist?`, { cause: error });
  }
  // Byte order of UTF-8 is code point order; JavaScript's own order is not beyond the basic plane.
  return names
    .filter((name) => !name.startsWith('.') && hasPictureExtension(name))
    .sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
}

/**
 * Name of the text file that holds a picture's caption.
 *
 * @param pictureName - e.g. `hill.jpg`
 * @returns e.g. `hill.txt`
 */
export function captionFile(pictureName: string): string {
  return `${pictureName.slice(0, -extname(pictureName).length)}.txt`;
}

/**
 * Reads all pictures of a directory with their captions. Deterministic: equal files give equal pixels in equal order.
 *
 * @param directory - pictures, and beside each an optional caption `<same stem>.txt`
 * @param options - fallback caption, size and limits
 * @throws TooFewImagesError when it holds no picture
 * @throws ImageInvalidError naming every unusable picture or caption at once
 */
export async function readDataset(directory: string, options: DatasetOptions): Promise<TrainingPicture[]> {
  const names = await listPictures(directory);
  if (names.length === 0) {
    throw new TooFewImagesError(`${directory} holds no picture: put .jpg, .png or .webp files there.`);
  }
  const pictures: TrainingPicture[] = [];
  const faults: string[] = [];
  for (let start = 0; start < names.length; start += DECODE_CONCURRENCY) {
    const batch = names.slice(start, start + DECODE_CONCURRENCY).map((name) => readPicture(directory, name, options));
    for (const outcome of await Promise.allSettled(batch)) {
      if (outcome.status === 'fulfilled') pictures.push(outcome.value);
      else if (outcome.reason instanceof PictureFault) faults.push(outcome.reason.message);
      else throw outcome.reason;
    }
  }
  if (faults.length > 0) throw new ImageInvalidError(invalidMessage(faults, names.length));
  return pictures;
}

/**
 * One sentence for a set of unusable pictures.
 *
 * @param faults - one `<name> <what is wrong>` for each
 * @param pictureCount - pictures looked at
 */
export function invalidMessage(faults: readonly string[], pictureCount: number): string {
  return `${faults.length} of ${pictureCount} pictures can't be used: ${faults.join('; ')}. Replace or remove them.`;
}

async function readPicture(directory: string, name: string, options: DatasetOptions): Promise<TrainingPicture> {
  try {
    const bytes = await readFile(join(directory, name));
    const decoded = await decodePicture(bytes, options.resolutionPx, options.limits ?? LOCAL_PICTURE_LIMITS);
    const own = await readCaption(join(directory, captionFile(name)));
    return { name, ...decoded, caption: own ?? options.fallbackCaption, hasOwnCaption: own !== null };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new PictureFault(error instanceof PictureFault ? `${name} ${reason}` : `${name} can't be read (${reason})`);
  }
}

async function readCaption(file: string): Promise<string | null> {
  let bytes: Buffer;
  try {
    bytes = await readFile(file);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    throw error;
  }
  if (bytes.length > MAX_CAPTION_BYTES) throw new PictureFault(`has a caption of more than ${MAX_CAPTION_BYTES} bytes`);
  const caption = decodeText(bytes).trim();
  return caption === '' ? null : caption;
}

/** UTF-8, or UTF-16 where a byte order mark says so (as Windows editors save); marks are not part of the caption. */
function decodeText(bytes: Buffer): string {
  const mark = bytes.subarray(0, 2).toString('hex');
  const encoding = mark === 'fffe' ? 'utf-16le' : mark === 'feff' ? 'utf-16be' : 'utf-8';
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch (error) {
    throw new PictureFault('has a caption that is not UTF-8 text', { cause: error });
  }
}
