import type { TrainingConfig } from '../../common/types.ts';
import { countBySize, sizeName, stepsPerEpoch } from './aspect-buckets.ts';
import { type DataReport, type PictureReport, trainedSizes } from './data-report.ts';
import { holdOut } from './held-out-pictures.ts';

const MAX_CAPTION_LENGTH = 40;

/**
 * A data report for people: a row for each picture, below it what is wrong (!) and doubtful (?), and a summary.
 *
 * @param report - see `inspectDirectory`
 * @param config - that it is going to be trained with
 */
export function reportTable(report: DataReport, config: TrainingConfig): string {
  const head = ['picture', 'size', 'format', 'caption', 'what is done to it'];
  const { heldOut } = holdOut(report.pictures, config);
  const rows = report.pictures.map((picture) => rowOf(picture, heldOut.includes(picture)));
  const widths = head.map((title, column) =>
    Math.max(...[head, ...rows].map((row) => row[column]?.length ?? 0), title.length),
  );
  const line = (cells: readonly string[]) =>
    cells
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd();
  const lines = report.pictures.flatMap(({ faults, doubts }, index) => [
    line(rows[index] ?? []),
    ...faults.map((fault) => `  ! ${printable(fault)}`),
    ...doubts.map((doubt) => `  ? ${printable(doubt)}`),
  ]);
  const general = report.doubts.map((doubt) => `? ${printable(doubt)}`);
  return [
    line(head),
    line(widths.map((width) => '-'.repeat(width))),
    ...lines,
    ...general,
    '',
    ...sizes(report, config),
    summary(report, config),
  ].join('\n');
}

function rowOf(picture: PictureReport, isHeldOut: boolean): string[] {
  const { name, widthPx, heightPx, sizeBytes, format, colours, caption, captionFrom, done } = picture;
  const text = caption ?? '';
  const short = text.length > MAX_CAPTION_LENGTH ? `${text.slice(0, MAX_CAPTION_LENGTH - 1)}…` : text;
  return [
    name,
    listed(widthPx === null ? null : `${widthPx}×${heightPx}`, sizeBytes === 0 ? null : fileSize(sizeBytes)),
    listed(format, colours),
    captionFrom === 'file' ? short : `(${short})`,
    [...done, ...(isHeldOut ? ['held out of training'] : [])].join(', '),
  ].map(printable);
}

/** Those that are known. */
function listed(...facts: (string | null)[]): string {
  return facts.filter((fact) => fact !== null).join(', ');
}

/** Only where there are several. */
function sizes(report: DataReport, config: TrainingConfig): string[] {
  const counts = countBySize(trainedSizes(report, config));
  if (counts.length < 2) return [];
  return [
    `Trained in ${counts.length} sizes: ${counts.map(({ size, count }) => `${count} of ${sizeName(size)}`).join(', ')}.`,
  ];
}

function summary(report: DataReport, config: TrainingConfig): string {
  const { pictures } = report;
  const { epochs, validationPictures } = config;
  const unusable = pictures.filter(({ faults }) => faults.length > 0).length;
  const doubtful = pictures.filter(({ faults, doubts }) => faults.length === 0 && doubts.length > 0).length;
  const counts = [
    `${pictures.length - unusable - doubtful} good`,
    ...(doubtful === 0 ? [] : [`${doubtful} doubtful`]),
    ...(unusable === 0 ? [] : [`${unusable} that can't be used`]),
  ];
  const steps = epochs * stepsPerEpoch(trainedSizes(report, config), config);
  const without = validationPictures === 0 ? '' : ` without the ${validationPictures} held out`;
  const training =
    unusable > 0
      ? "Replace or remove what can't be used."
      : `${epochs === 1 ? '1 epoch' : `${epochs} epochs`}${without} make ${steps} steps.`;
  return `${pictures.length} pictures: ${counts.join(', ')}. Captions in brackets are not the picture's own. ${training}`;
}

function fileSize(bytes: number): string {
  const [unit, name] = bytes < 2 ** 20 ? [2 ** 10, 'KiB'] : [2 ** 20, 'MiB'];
  return `${(bytes / unit).toFixed(bytes < 10 * unit ? 1 : 0)} ${name}`;
}

/** Names and captions are others': no control characters reach the terminal. */
function printable(text: string): string {
  return text.replaceAll(/\p{Cc}+/gu, ' ');
}
