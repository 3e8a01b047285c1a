import { createHash } from 'node:crypto';
import { readFile, readdir } from 'node:fs/promises';
import { extname, join } from 'node:path';
import { fileFault } from '../../common/file-fault.ts';
import { MAX_IMAGES, MIN_IMAGES } from '../../common/job-request.ts';
import type { TrainingConfig } from '../../common/types.ts';
import type { SizePx } from './aspect-buckets.ts';
import { captionFile, readCaption, withTriggerWord } from './caption.ts';
import { listPictures } from './dataset.ts';
import { holdOut } from './held-out-pictures.ts';
import { PictureFault, type PictureLimits, readPictureFile, sizeFault, unknownSizeFault } from './picture.ts';
import { type PictureFacts, type PicturePlan, hashDistance, headFacts, inspectPicture } from './picture-facts.ts';

/** One picture of a {@link DataReport}. */
export interface PictureReport extends PictureFacts {
  /** File name. */
  name: string;
  /** 0 where it can't be told. */
  sizeBytes: number;
  /** Of the file, lower-case hex. */
  sha256: string;
  /** As the text encoder gets it; null where it can't be read. */
  caption: string | null;
  /** 'file': of its own; 'fallback': from tags, `--caption` or the instance prompt. */
  captionFrom: 'file' | 'fallback';
}

/** What is to be known of a data set before it is trained on. */
export interface DataReport {
  /** Sorted as the recipe does. */
  pictures: PictureReport[];
  /** Why the training may not like the data set as a whole. */
  doubts: string[];
}

/** How {@link inspectDirectory} looks at a directory. */
export interface InspectOptions extends PicturePlan {
  /** Caption of a picture without a `.txt` file or with an empty one. */
  fallbackCaption: string;
  triggerWord: string | null;
}

/** Perceptual hashes that differ in no more bits belong to copies: resized, recompressed, slightly retouched. */
const MAX_COPY_DISTANCE = 4;

/** Tokens between begin and end of text that CLIP's text encoder reads. */
const CAPTION_TOKENS = 75;

/** What CLIP's tokenizer takes as one word; each becomes at least one token. */
const CLIP_WORD = /'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/giu;

/** Files beside pictures that are expected to be no pictures. */
const QUIET_EXTENSIONS = new Set(['.txt', '.json', '.jsonl', '.md', '.csv', '']);

/**
 * Looks at all pictures and captions of a directory, without a model and without a GPU.
 *
 * @param directory - as for `readDataset`
 * @param options - what is going to be done with them
 * @throws ImageInvalidError when the directory can't be read
 */
export async function inspectDirectory(directory: string, options: InspectOptions): Promise<DataReport> {
  const names = await listPictures(directory);
  const pictures: PictureReport[] = [];
  // One after the other: libvips uses several threads for each.
  for (const name of names) {
    const report = await inspectFile(directory, name, options).catch((error: unknown) => {
      return faultyReport(name, error instanceof PictureFault ? error.message : fileFault(error));
    });
    pictures.push(report);
  }
  const files = await readdir(directory);
  return reportOn(pictures, [...ignoredFiles(files, names), ...sharedCaptions(names), ...unusualCount(names.length)]);
}

/**
 * Looks at one picture and its caption. Only a file that can't be read makes it reject.
 *
 * @param directory - that holds both
 * @param name - of the picture's file
 * @param options - what is going to be done with it
 */
export async function inspectFile(directory: string, name: string, options: InspectOptions): Promise<PictureReport> {
  const { fallbackCaption, triggerWord } = options;
  const bytes = await readPictureFile(join(directory, name));
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  const facts = await inspectPicture(bytes, options);
  const report: PictureReport = { ...emptyReport(name), ...facts, sizeBytes: bytes.length, sha256 };
  try {
    const own = await readCaption(join(directory, captionFile(name)));
    report.caption = withTriggerWord(own ?? fallbackCaption, triggerWord);
    report.captionFrom = own === null ? 'fallback' : 'file';
    report.doubts.push(...captionDoubts(report.caption));
  } catch (error) {
    if (!(error instanceof PictureFault)) throw error;
    report.faults.push(error.message);
  }
  return report;
}

/**
 * Looks at what a picture begins with that is too big to be fetched. Only a file that can't be read makes it reject.
 *
 * @param directory - that holds it
 * @param name - of the file with the picture's first bytes
 * @param sizeBytes - of the whole; null where nobody has said
 * @param limits - what is refused
 */
export async function inspectStart(
  directory: string,
  name: string,
  sizeBytes: number | null,
  limits: PictureLimits,
): Promise<PictureReport> {
  const head = await headFacts(await readFile(join(directory, name)));
  const fault = (sizeBytes === null ? null : sizeFault(sizeBytes, limits)) ?? unknownSizeFault(limits);
  return { ...faultyReport(name, fault), ...head, sizeBytes: sizeBytes ?? 0 };
}

/**
 * On a picture of which nothing is known but that it can't be used.
 *
 * @param name - of the picture
 * @param fault - in words that follow its name
 */
export function faultyReport(name: string, fault: string): PictureReport {
  return { ...emptyReport(name), faults: [fault] };
}

function emptyReport(name: string): PictureReport {
  return {
    name,
    sizeBytes: 0,
    sha256: '',
    format: null,
    widthPx: null,
    heightPx: null,
    trainedSize: null,
    colours: null,
    caption: null,
    captionFrom: 'fallback',
    done: [],
    faults: [],
    doubts: [],
    perceptualHash: null,
  };
}

/**
 * Puts pictures together: names copies, and what concerns all.
 *
 * @param pictures - sorted as the recipe does; copies get a doubt each
 * @param doubts - about the data set, known already
 */
export function reportOn(pictures: PictureReport[], doubts: string[] = []): DataReport {
  pictures.forEach((picture, index) => {
    const earlier = pictures.slice(0, index);
    const same = earlier.find(({ sha256 }) => sha256 !== '' && sha256 === picture.sha256);
    const alike = earlier.find((other) => looksLike(picture, other));
    if (same !== undefined) picture.doubts.push(`is the same file as ${same.name}: remove one of them`);
    else if (alike !== undefined) picture.doubts.push(`looks like ${alike.name}: remove one of them if it is a copy`);
  });
  return { pictures, doubts: [...doubts, ...missingCaptions(pictures)] };
}

/**
 * One line for each doubt, for logs and for the workflow.
 *
 * @param report - of a data set
 * @returns e.g. `a.png is of nearly one colour`
 */
export function doubtLines({ pictures, doubts }: DataReport): string[] {
  return [...pictures.flatMap(({ name, doubts: own }) => own.map((doubt) => `${name} ${doubt}`)), ...doubts];
}

/**
 * In which sizes the pictures of a report are trained; those that are held out are not.
 *
 * @param report - without faults: what can't be used may have no size
 * @param config - of the training
 */
export function trainedSizes(
  { pictures }: DataReport,
  config: Pick<TrainingConfig, 'seed' | 'validationPictures'>,
): SizePx[] {
  return holdOut(pictures, config).kept.flatMap(({ trainedSize }) => trainedSize ?? []);
}

function looksLike(a: PictureReport, b: PictureReport): boolean {
  if (a.perceptualHash === null || b.perceptualHash === null) return false;
  return hashDistance(a.perceptualHash, b.perceptualHash) <= MAX_COPY_DISTANCE;
}

function unusualCount(count: number): string[] {
  if (count >= MIN_IMAGES && count <= MAX_IMAGES) return [];
  return [`${count} pictures: the service takes ${MIN_IMAGES} to ${MAX_IMAGES}`];
}

function captionDoubts(caption: string): string[] {
  const count = caption.match(CLIP_WORD)?.length ?? 0;
  if (count <= CAPTION_TOKENS) return [];
  return [`has a caption of at least ${count} tokens, of which the text encoder reads ${CAPTION_TOKENS}`];
}

function missingCaptions(pictures: readonly PictureReport[]): string[] {
  const readable = pictures.filter(({ caption }) => caption !== null);
  const without = readable.filter(({ captionFrom }) => captionFrom === 'fallback');
  if (without.length === 0 || without.length === readable.length) return [];
  return [`${without.length} of ${readable.length} pictures have no caption of their own, unlike the others`];
}

function ignoredFiles(files: readonly string[], names: readonly string[]): string[] {
  const captions = new Set(names.map(captionFile));
  const orphans = files.filter((file) => extname(file) === '.txt' && !captions.has(file));
  const others = files.filter((file) => !names.includes(file) && !QUIET_EXTENSIONS.has(extname(file).toLowerCase()));
  return [
    ...(others.length === 0 ? [] : [`no JPEG, PNG or WebP, and ignored: ${others.sort().join(', ')}`]),
    ...(orphans.length === 0 ? [] : [`text files without a picture: ${orphans.sort().join(', ')}`]),
  ];
}

/** `hill.jpg` and `hill.png` have but one `hill.txt`. */
function sharedCaptions(names: readonly string[]): string[] {
  const byCaption = Map.groupBy(names, captionFile);
  return [...byCaption.values()]
    .filter((sharing) => sharing.length > 1)
    .map((sharing) => `${sharing.join(' and ')} share one caption`);
}
