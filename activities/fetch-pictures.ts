import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import {
  AccessDeniedError,
  BlockedTargetError,
  BrushworkError,
  ImageInvalidError,
  ImageNotFoundError,
  InvalidRequestError,
  StorageUnavailableError,
  TooLongError,
} from '../common/errors.ts';
import { captionLocation, parseImageUri, redactUri } from '../common/image-uri.ts';
import type { ImageUriRules } from '../common/image-uri.ts';
import type { ImageLocation, ObjectStore } from '../common/object-store.ts';
import type { ResizeMode } from '../common/types.ts';
import { MAX_CAPTION_BYTES, captionFile, readCaption } from '../native/trainer/caption.ts';
import { type DataReport, type PictureReport, faultyReport, reportOn } from '../native/trainer/data-report.ts';
import { byCodePoint } from '../native/trainer/dataset.ts';
import { JOB_PICTURE_LIMITS, PictureFault } from '../native/trainer/picture.ts';
import { PictureInspector } from '../native/trainer/picture-inspector.ts';
import { inParallel } from './in-parallel.ts';
import type { KeptPictures } from './kept-pictures.ts';
import { pictureNames } from './picture-names.ts';

const PARALLEL = 8;
/** What differs from what was looked at may have been damaged on the way, or its caption refused once: it is read again. */
const READS = 2;
/** A store that fails so often is down: the rest is not asked for. */
const MAX_UNAVAILABLE = PARALLEL;
/** What a web server may answer with success for a file that it does not have. */
const WEB_PAGE = /^<(!doctype|html)/i;

/** A picture on this machine's disk. */
export interface FetchedPicture {
  name: string;
  /** Where it came from by itself, as in the message; null: from the job's own copy, or from a place that does not expire. */
  url: string | null;
  sha256: string;
  captionSha256: string;
  report: PictureReport;
}

/** How {@link fetchPictures} works. */
export interface FetchOptions {
  store: ObjectStore;
  /** The job's own copies, which are preferred to what a URL gives. */
  kept: KeptPictures;
  rules: ImageUriRules;
  /** Empty directory that receives pictures and captions. */
  directory: string;
  /** Caption of a picture that has none of its own. */
  fallbackCaption: string;
  /** What {@link pictureHash} was of each picture of the message when it was looked at; null: not known. */
  hashes: readonly string[] | null;
  /** What is going to be done with the pictures. */
  plan: { resolutionPx: number; resizeMode: ResizeMode; triggerWord: string | null };
  signal: AbortSignal;
  /** Called after each picture. */
  onPicture: () => void;
}

/** A job's pictures, as far as they can be used. */
export interface FetchedPictures {
  /** In the order of the message. */
  pictures: FetchedPicture[];
  /** On all of them, those that can't be used too, in the order of the recipe. */
  report: DataReport;
  /**
   * Names every picture that can't be used, or null: AccessDeniedError, ImageNotFoundError, BlockedTargetError or
   * ImageInvalidError.
   */
  fault: BrushworkError | null;
}

/** What is wrong with one picture; collected, so that all are named at once. */
class Fault {
  readonly kind: 'denied' | 'missing' | 'blocked' | 'invalid';
  readonly text: string;
  readonly report: PictureReport;

  constructor(kind: Fault['kind'], text: string, report: PictureReport) {
    this.kind = kind;
    this.text = text;
    this.report = report;
  }
}

/** One picture to fetch. */
interface Wanted {
  uri: string;
  location: ImageLocation;
  /** On the disk. */
  name: string;
  /** What people are told. */
  shown: string;
  /** What it was when it was looked at, or null. */
  hash: string | null;
}

/**
 * Brings a job's pictures and captions onto the disk and looks at each one. Every picture has a caption file afterwards.
 *
 * @param uris - as in the message
 * @throws StorageUnavailableError when some can't be fetched just now and nothing is wrong with the others
 */
export async function fetchPictures(uris: readonly string[], options: FetchOptions): Promise<FetchedPictures> {
  const located = uris.map((uri) => locate(uri, options.rules));
  const usable = located.filter((location) => !(location instanceof Fault));
  const names = pictureNames(usable);
  const nameOf = new Map(usable.map((location, index) => [location, names[index] ?? '']));
  const unavailable: StorageUnavailableError[] = [];
  const inspector = new PictureInspector();
  const close = () => inspector.close();
  options.signal.addEventListener('abort', close);
  let outcomes: (FetchedPicture | Fault | null)[];
  try {
    outcomes = await inParallel(located, PARALLEL, async (location, index) => {
      if (location instanceof Fault) return location;
      if (unavailable.length >= MAX_UNAVAILABLE) return null;
      const uri = uris[index] ?? '';
      const hash = options.hashes?.[index] ?? null;
      const wanted = { uri, location, name: nameOf.get(location) ?? '', shown: redactUri(uri), hash };
      const picture = await fetchPicture(wanted, inspector, options).catch((error: unknown) => {
        // What is wrong with others is worth more than a store that may be back soon.
        if (!(error instanceof StorageUnavailableError)) throw error;
        unavailable.push(error);
        return null;
      });
      options.onPicture();
      return picture;
    });
  } finally {
    options.signal.removeEventListener('abort', close);
    close();
  }
  const faults = outcomes.filter((outcome) => outcome instanceof Fault);
  const [firstUnavailable] = unavailable;
  if (firstUnavailable !== undefined && faults.length === 0) throw firstUnavailable;
  const pictures = outcomes.flatMap((outcome) => (outcome === null || outcome instanceof Fault ? [] : [outcome]));
  const reports = [...pictures, ...faults].map(({ report }) => report).sort((a, b) => byCodePoint(a.name, b.name));
  const rest = firstUnavailable === undefined ? '' : ' Others could not be fetched just now.';
  const fault = faults.length === 0 ? null : errorOf(faults, uris.length, rest, options.hashes !== null);
  return { pictures, report: reportOn(reports), fault };
}

function locate(uri: string, rules: ImageUriRules): ImageLocation | Fault {
  try {
    return parseImageUri(uri, rules);
  } catch (error) {
    if (!(error instanceof BlockedTargetError || error instanceof InvalidRequestError)) throw error;
    const kind = error instanceof BlockedTargetError ? 'blocked' : 'invalid';
    return new Fault(kind, error.message, faultyReport(redactUri(uri), error.message));
  }
}

async function fetchPicture(
  wanted: Wanted,
  inspector: PictureInspector,
  options: FetchOptions,
): Promise<FetchedPicture | Fault> {
  const { directory, fallbackCaption, plan } = options;
  const { name, shown } = wanted;
  const request = { directory, name, options: { ...plan, fallbackCaption } };
  const fetched = await fetchSound(wanted, options);
  if (fetched instanceof Fault) return fetched;
  if (fetched instanceof TooLongError) {
    await writeFile(path.join(directory, name), fetched.start);
    const report = await inspector.inspect({ ...request, startOf: { sizeBytes: fetched.sizeBytes } });
    return new Fault('invalid', `${shown} ${report.faults.join(', and ')}`, report);
  }
  const found = await inspector.inspect(request);
  const report = { ...found, captionFrom: fetched.captionFrom };
  if (found.faults.length > 0) return new Fault('invalid', `${shown} ${found.faults.join(', and ')}`, report);
  const { url, sha256, captionSha256 } = fetched;
  return { name, url, sha256, captionSha256, report };
}

/** What was fetched of a picture. */
type Fetched = Pick<FetchedPicture, 'url' | 'sha256'> & Caption;
type Caption = Pick<FetchedPicture, 'captionSha256'> & Pick<PictureReport, 'captionFrom'>;

/** A picture and its caption as they were when they were looked at, where that is known. */
async function fetchSound(wanted: Wanted, options: FetchOptions): Promise<Fetched | Fault | TooLongError> {
  const { name, shown, hash } = wanted;
  for (let read = 1; ; read++) {
    const fetched = (await fetchKept(wanted, options)) ?? (await fetchOriginal(wanted, options));
    if (fetched instanceof Fault || fetched instanceof TooLongError) return fetched;
    if (hash === null || pictureHash(fetched) === hash) return fetched;
    const fault = 'is not what it was, or its caption is not';
    if (read === READS) return new Fault('invalid', `${shown} ${fault}`, faultyReport(name, fault));
  }
}

/**
 * SHA-256 over a picture and its own caption: what a pod reads must be what was looked at when the job was accepted. The job's
 * caption for those without one is a matter of configuration.
 *
 * @returns lower-case hex
 */
export function pictureHash({ sha256, captionSha256, captionFrom }: Fetched): string {
  const content = [sha256, captionFrom === 'file' ? captionSha256 : null];
  return createHash('sha256').update(JSON.stringify(content)).digest('hex');
}

async function fetchKept({ uri, location, name }: Wanted, options: FetchOptions): Promise<Fetched | null> {
  if (location.kind !== 'url') return null;
  const { directory, signal } = options;
  const copy = await options.kept.fetch(uri, directory, name, signal);
  if (copy === null) return null;
  const { picture, caption } = copy;
  const ofPicture = { url: null, sha256: picture.sha256 };
  if (caption !== null) return { ...ofPicture, captionSha256: caption.sha256, captionFrom: 'file' };
  return { ...ofPicture, ...(await writeFallback(name, options)) };
}

/** What of a picture that is too big has come is worth a look. */
async function fetchOriginal(
  { uri, location, name, shown }: Wanted,
  options: FetchOptions,
): Promise<Fetched | Fault | TooLongError> {
  const { store, directory, signal } = options;
  const faultOf = (kind: Fault['kind'], text: string, fault: string) =>
    new Fault(kind, text, faultyReport(name, fault));
  try {
    const { maxBytes } = JOB_PICTURE_LIMITS;
    const fetched = await store.downloadImage(location, path.join(directory, name), { maxBytes, signal });
    if (fetched === null) return faultOf('missing', `${shown} does not exist`, 'does not exist');
    const url = location.kind === 'url' ? uri : null;
    return { url, sha256: fetched.sha256, ...(await fetchCaption(location, name, options)) };
  } catch (error) {
    if (!(error instanceof BrushworkError)) throw error;
    const { message } = error;
    if (error instanceof TooLongError) return error;
    if (error instanceof InvalidRequestError) return faultOf('invalid', `${shown}: ${message}`, message);
    if (error instanceof AccessDeniedError) return faultOf('denied', `${shown}: ${message}`, message);
    if (error instanceof BlockedTargetError) return faultOf('blocked', message, message);
    throw error;
  }
}

async function fetchCaption(location: ImageLocation, name: string, options: FetchOptions): Promise<Caption> {
  const { store, directory, signal } = options;
  const file = path.join(directory, captionFile(name));
  const from = captionLocation(location);
  const fetched = from === null ? null : await fetchIfAllowed(store, from, file, signal);
  if (fetched !== null && (await saysSomething(file))) return { captionSha256: fetched, captionFrom: 'file' };
  return writeFallback(name, options);
}

async function writeFallback(name: string, { directory, fallbackCaption }: FetchOptions): Promise<Caption> {
  await writeFile(path.join(directory, captionFile(name)), fallbackCaption);
  return { captionSha256: createHash('sha256').update(fallbackCaption).digest('hex'), captionFrom: 'fallback' };
}

/** What is no text counts: it is to be named, not passed over. */
async function saysSomething(file: string): Promise<boolean> {
  try {
    const text = await readCaption(file);
    return text !== null && !WEB_PAGE.test(text);
  } catch (error) {
    if (error instanceof PictureFault) return true;
    throw error;
  }
}

/** Stores without the right to list answer "denied" for what does not exist; a caption is optional anyway. */
async function fetchIfAllowed(
  store: ObjectStore,
  from: ImageLocation,
  file: string,
  signal: AbortSignal,
): Promise<string | null> {
  try {
    const fetched = await store.downloadImage(from, file, { maxBytes: MAX_CAPTION_BYTES, signal });
    return fetched?.sha256 ?? null;
  } catch (error) {
    if (error instanceof AccessDeniedError) return null;
    // A web server answers what it does not know in many ways: with a page, a redirect, a refusal.
    if (from.kind === 'url' && (error instanceof BlockedTargetError || error instanceof InvalidRequestError))
      return null;
    throw error;
  }
}

function errorOf(faults: readonly Fault[], pictureCount: number, rest: string, wereSound: boolean): BrushworkError {
  const text = faults.map((fault) => fault.text.replace(/\.$/, '')).join('; ');
  const remedy = wereSound
    ? "They could be when the job was accepted: they were changed since, or this pod can't read them. Put them back as they were, or send the job with a new task_id."
    : 'Replace or remove them.';
  const message = `${faults.length} of ${pictureCount} images can't be used: ${text}. ${remedy}${rest}`;
  const has = (kind: Fault['kind']) => faults.some((fault) => fault.kind === kind);
  const options = { retryable: wereSound };
  if (has('denied')) return new AccessDeniedError(message, options);
  if (has('missing')) return new ImageNotFoundError(message, options);
  return has('blocked') ? new BlockedTargetError(message) : new ImageInvalidError(message, options);
}
