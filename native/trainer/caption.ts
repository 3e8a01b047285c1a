import { readFile, stat } from 'node:fs/promises';
import { extname } from 'node:path';
import { PictureFault } from './picture.ts';

/** A caption longer than this is no caption: the text encoder reads 75 tokens. */
export const MAX_CAPTION_BYTES = 64 * 1024;

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
 * Reads a caption as editors save it: UTF-8, or UTF-16 with a byte order mark.
 *
 * @param file - a text file, which need not exist
 * @returns what it says, trimmed; null without the file, or when it says nothing
 * @throws PictureFault when it is no text, or too long to be a caption
 */
export async function readCaption(file: string): Promise<string | null> {
  let bytes: Buffer;
  try {
    // A pipe or a device might never come to an end.
    const found = await stat(file);
    if (!found.isFile() && !found.isDirectory()) throw new PictureFault('has a caption that is not a regular file');
    bytes = await readFile(file);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    throw error;
  }
  if (bytes.length > MAX_CAPTION_BYTES) throw new PictureFault(`has a caption of more than ${MAX_CAPTION_BYTES} bytes`);
  const caption = decodeText(bytes).trim();
  // UTF-16 without a byte order mark is UTF-8 full of these.
  if (caption.includes('\0')) throw new PictureFault('has a caption with zero bytes: save it as UTF-8 text');
  return caption === '' ? null : caption;
}

/** Byte order marks are not part of the caption. */
function decodeText(bytes: Buffer): string {
  const mark = bytes.subarray(0, 2).toString('hex');
  const encoding = mark === 'fffe' ? 'utf-16le' : mark === 'feff' ? 'utf-16be' : 'utf-8';
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch (error) {
    throw new PictureFault('has a caption that is not UTF-8 text', { cause: error });
  }
}

/**
 * Puts the trigger word in front of a caption, unless the caption has it already: as a word of its own, in capitals or not
 * (the text encoder knows no capitals).
 *
 * @param caption - e.g. `a red house`
 * @param triggerWord - e.g. `inkwash`, or null
 * @returns e.g. `inkwash, a red house`
 */
export function withTriggerWord(caption: string, triggerWord: string | null): string {
  if (triggerWord === null) return caption;
  const escaped = triggerWord.replaceAll(/[\\^$.*+?()[\]{}|]/g, '\\$&');
  const asWord = new RegExp(`(?<![\\p{L}\\p{N}])${escaped}(?![\\p{L}\\p{N}])`, 'iu');
  if (asWord.test(caption)) return caption;
  return caption === '' ? triggerWord : `${triggerWord}, ${caption}`;
}
