import { readdir } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { ImageInvalidError, TooFewImagesError } from '../../common/errors.ts';
import { fileFault } from '../../common/file-fault.ts';
import type { ResizeMode } from '../../common/types.ts';
import { captionFile, readCaption, withTriggerWord } from './caption.ts';
import {
  type DecodedPicture,
  LOCAL_PICTURE_LIMITS,
  PictureFault,
  type PictureLimits,
  decodePicture,
  readPictureFile,
} from './picture.ts';

const PICTURE_EXTENSIONS = new Set(['.jpg', '.jpeg', '.png', '.webp']);

/** Whether a file's name is one of a picture that can be trained on. */
export function hasPictureExtension(name: string): boolean {
  return PICTURE_EXTENSIONS.has(extname(name).toLowerCase());
}

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
  /** Side of a square training picture. */
  resolutionPx: number;
  /** How pictures get their size; default: 'crop'. */
  resizeMode?: ResizeMode;
  /** Put in front of captions that lack it; default: none. */
  triggerWord?: string | null;
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
    throw new ImageInvalidError(`The image directory ${directory} can't be read: is it a directory?`, { cause: error });
  }
  return names.filter((name) => !name.startsWith('.') && hasPictureExtension(name)).sort(byCodePoint);
}

/**
 * The recipe's order of pictures, for `sort`.
 *
 * @param a - a picture's name
 * @param b - another's
 */
export function byCodePoint(a: string, b: string): number {
  // Byte order of UTF-8 is code point order; JavaScript's own order is not beyond the basic plane.
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
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
  const { resolutionPx, resizeMode, limits = LOCAL_PICTURE_LIMITS, fallbackCaption, triggerWord = null } = options;
  try {
    const decoded = await decodePicture(await readPictureFile(join(directory, name)), resolutionPx, limits, resizeMode);
    const own = await readCaption(join(directory, captionFile(name)));
    const caption = withTriggerWord(own ?? fallbackCaption, triggerWord);
    return { name, ...decoded, caption, hasOwnCaption: own !== null };
  } catch (error) {
    throw new PictureFault(`${name} ${error instanceof PictureFault ? error.message : fileFault(error)}`);
  }
}
