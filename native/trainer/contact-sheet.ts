import path from 'node:path';
import sharp from 'sharp';
import { InternalError } from '../../common/errors.ts';
import { cutToWidth, inStrokes, strokeText } from '../../common/stroke-font.ts';
import { writeAtomically } from '../../common/write-atomically.ts';
import { type SizePx, countBySize, trainedSize } from './aspect-buckets.ts';

const GAP_PX = 8;

/** Digits are a sheet's width divided by this high, within the limits: a line has room for about as many letters. */
const LETTERS = 75;
const LETTER_LIMITS_PX = [7, 18] as const;

const INK = '#1a1a1a';
const FAINT_INK = '#555555';

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
 * The size of a sheet's pictures: square, but for jobs with aspect buckets, whose sheets show the bucket that most of the
 * pictures are in.
 *
 * @param trained - sizes of the job's pictures
 * @param sidePx - of a square; a bucket has about its area; null, or more than they are trained in: as they are trained
 */
export function pictureSize(trained: readonly SizePx[], sidePx: number | null): SizePx {
  // Of equals the first, by width: which one does not matter, but it has to be the same in every sheet.
  const [commonest] = countBySize(trained).sort((a, b) => b.count - a.count);
  if (commonest === undefined) throw new InternalError('A job without pictures has no contact sheet.');
  const { widthPx, heightPx } = commonest.size;
  if (sidePx === null || sidePx ** 2 >= widthPx * heightPx) return commonest.size;
  return trainedSize(commonest.size, sidePx, isSquare(commonest.size) ? 'crop' : 'bucket');
}

function isSquare({ widthPx, heightPx }: SizePx): boolean {
  return widthPx === heightPx;
}

/**
 * Writes the rows' pictures as one PNG, atomically: the base model's on the left, the job's on the right, each row below
 * its prompt. Prompts are drawn in the letters of `common/stroke-font.ts`, and cut to the sheet's width.
 *
 * @param rows - whose pictures are on disk
 * @param size - of each picture
 * @param title - of the right column, e.g. `epoch 20/100`
 * @param file - to write
 */
export async function composeSheet(
  rows: readonly SheetRow[],
  size: SizePx,
  title: string,
  file: string,
): Promise<void> {
  const layout = layoutOf(rows.length, size);
  const pictures = rows.flatMap(({ baseFile, currentFile }, row) => [
    { input: baseFile, left: layout.leftPx[0], top: layout.topPx(row) },
    { input: currentFile, left: layout.leftPx[1], top: layout.topPx(row) },
  ]);
  const labels = Buffer.from(labelsSvg(rows, title, layout));
  const sheet = sharp({
    create: { width: layout.widthPx, height: layout.heightPx, channels: 3, background: '#ffffff' },
  })
    .composite([{ input: labels, left: 0, top: 0 }, ...pictures])
    .removeAlpha()
    .png();
  await writeAtomically(file, await sheet.toBuffer());
}

/** Where everything lies on a sheet. */
interface Layout {
  widthPx: number;
  heightPx: number;
  /** Of the base model's pictures and of the job's. */
  leftPx: readonly [number, number];
  columnPx: number;
  /** Height of a digit. */
  letterPx: number;
  /** Baseline of the titles. */
  titlePx: number;
  /** Top of a row's pictures. */
  topPx: (row: number) => number;
  /** Baseline of a row's prompt. */
  promptPx: (row: number) => number;
}

function layoutOf(rowCount: number, { widthPx: columnPx, heightPx: rowPx }: SizePx): Layout {
  const widthPx = 2 * columnPx + 3 * GAP_PX;
  const letterPx = Math.min(LETTER_LIMITS_PX[1], Math.max(LETTER_LIMITS_PX[0], Math.round(widthPx / LETTERS)));
  // A line has room for what hangs below the baseline, which is a third of a digit.
  const linePx = Math.round(letterPx * 2);
  const headPx = GAP_PX + linePx;
  const topPx = (row: number) => headPx + row * (linePx + rowPx + GAP_PX) + linePx;
  return {
    widthPx,
    heightPx: topPx(rowCount) - linePx,
    leftPx: [GAP_PX, 2 * GAP_PX + columnPx],
    columnPx,
    letterPx,
    titlePx: GAP_PX + letterPx,
    topPx,
    promptPx: (row) => topPx(row) - Math.round(letterPx * 0.6),
  };
}

function labelsSvg(rows: readonly SheetRow[], title: string, layout: Layout): string {
  const { widthPx, heightPx, leftPx, columnPx, letterPx } = layout;
  const line = (text: string, x: number, y: number, roomPx: number, color: string) =>
    strokeText(cutToWidth(inStrokes(text), letterPx, roomPx), { x, y, heightPx: letterPx, color });
  const titles = ['base model', title].map((text, column) => {
    return line(text, leftPx[column] ?? 0, layout.titlePx, columnPx, INK);
  });
  const prompts = rows.map(({ prompt }, row) => {
    return line(
      prompt === '' ? '(no prompt)' : prompt,
      leftPx[0],
      layout.promptPx(row),
      widthPx - 2 * GAP_PX,
      FAINT_INK,
    );
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${widthPx}" height="${heightPx}">${[...titles, ...prompts].join('')}</svg>`;
}
