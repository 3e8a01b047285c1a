import { rename } from 'node:fs/promises';
import path from 'node:path';
import sharp from 'sharp';

const GAP_PX = 8;

/** One row of a contact sheet. */
export interface SheetRow {
  prompt: string;
  seed: number;
  /** The base model's picture, kept between sheets. */
  baseFile: string;
  /** The job's picture, written over by the next sheet. */
  currentFile: string;
}

/**
 * What the rows of a contact sheet show.
 *
 * @param prompts - one for each row; `{caption}` stands for the job's next distinct caption, from the first again after
 *   the last, `{trigger}` for its trigger word
 * @param seed - of the first row; each further row has the next one
 * @param directory - of the pictures
 * @param job - captions of its pictures, and its trigger word
 */
export function rowsOf(
  prompts: readonly string[],
  seed: number,
  directory: string,
  job: { captions: readonly string[]; triggerWord: string | null },
): SheetRow[] {
  const captions = [...new Set(job.captions)];
  let used = 0;
  const nextCaption = () => captions[used++ % captions.length] ?? '';
  return prompts.map((prompt, row) => ({
    prompt: prompt.replaceAll('{trigger}', () => job.triggerWord ?? '').replaceAll('{caption}', nextCaption),
    seed: seed + row,
    baseFile: path.join(directory, `${row}-base.png`),
    currentFile: path.join(directory, `${row}-current.png`),
  }));
}

/**
 * Writes the rows' pictures as one PNG, atomically: the base model's on the left, the job's on the right.
 *
 * @param rows - whose pictures are on disk
 * @param sidePx - of each picture
 * @param file - to write
 */
export async function composeSheet(rows: readonly SheetRow[], sidePx: number, file: string): Promise<void> {
  const stepPx = sidePx + GAP_PX;
  const pictures = rows.flatMap(({ baseFile, currentFile }, row) => [
    { input: baseFile, left: 0, top: row * stepPx },
    { input: currentFile, left: stepPx, top: row * stepPx },
  ]);
  const size = { width: 2 * stepPx - GAP_PX, height: rows.length * stepPx - GAP_PX };
  const temporary = `${file}.${process.pid}.part`;
  await sharp({ create: { ...size, channels: 3, background: '#ffffff' } })
    .composite(pictures)
    .removeAlpha()
    .png()
    .toFile(temporary);
  await rename(temporary, file);
}
