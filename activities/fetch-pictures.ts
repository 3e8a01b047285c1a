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
import { pictureNames } from './picture-names.ts';

const PARALLEL = 8;
/** A store that fails so often is down: the rest is not asked for. */
const MAX_UNAVAILABLE = PARALLEL;
/** What a web server may answer with success for a file that it does not have. */
const WEB_PAGE = /^<(!doctype|html)/i;

/** A picture on this machine's disk. */
export interface FetchedPicture {
  name: string;
  sha256: string;
  captionSha256: string;
  report: PictureReport;
}

/** How {@link fetchPictures} works. */
export interface FetchOptions {
  store: ObjectStore;
  rules: ImageUriRules;
  /** Empty directory that receives pictures and captions. */
  directory: string;
  /** Caption of a picture that has none of its own. */
  fallbackCaption: string;
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
  location: ImageLocation;
  /** On the disk. */
  name: string;
  /** What people are told. */
  shown: string;
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
      const wanted = { location, name: nameOf.get(location) ?? '', shown: redactUri(uris[index] ?? '') };
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
  const fault = faults.length === 0 ? null : errorOf(faults, uris.length, firstUnavailable !== undefined);
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
  { location, name, shown }: Wanted,
  inspector: PictureInspector,
  options: FetchOptions,
): Promise<FetchedPicture | Fault> {
  const { store, directory, signal, fallbackCaption, plan } = options;
  const file = path.join(directory, name);
  const faultOf = (kind: Fault['kind'], text: string, fault: string) =>
    new Fault(kind, text, faultyReport(name, fault));
  try {
    const fetched = await store.downloadImage(location, file, { maxBytes: JOB_PICTURE_LIMITS.maxBytes, signal });
    if (fetched === null) return faultOf('missing', `${shown} does not exist`, 'does not exist');
    const { captionSha256, captionFrom } = await fetchCaption(location, name, options);
    const found = await inspector.inspect({ directory, name, options: { ...plan, fallbackCaption } });
    const report = { ...found, captionFrom };
    if (found.faults.length > 0) return new Fault('invalid', `${shown} ${found.faults.join(', and ')}`, report);
    return { name, sha256: fetched.sha256, captionSha256, report };
  } catch (error) {
    if (!(error instanceof BrushworkError)) throw error;
    const { message } = error;
    if (error instanceof InvalidRequestError) return faultOf('invalid', `${shown}: ${message}`, message);
    if (error instanceof AccessDeniedError) return faultOf('denied', `${shown}: ${message}`, message);
    if (error instanceof BlockedTargetError) return faultOf('blocked', message, message);
    throw error;
  }
}

async function fetchCaption(
  location: ImageLocation,
  name: string,
  { store, directory, fallbackCaption, signal }: FetchOptions,
): Promise<{ captionSha256: string } & Pick<PictureReport, 'captionFrom'>> {
  const file = path.join(directory, captionFile(name));
  const from = captionLocation(location);
  const fetched = from === null ? null : await fetchIfAllowed(store, from, file, signal);
  if (fetched !== null && (await saysSomething(file))) return { captionSha256: fetched, captionFrom: 'file' };
  await writeFile(file, fallbackCaption);
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

function errorOf(faults: readonly Fault[], pictureCount: number, isIncomplete: boolean): BrushworkError {
  const text = faults.map((fault) => fault.text.replace(/\.$/, '')).join('; ');
  const rest = isIncomplete ? ' Others could not be fetched just now.' : '';
  const message = `${faults.length} of ${pictureCount} images can't be used: ${text}. Replace or remove them.${rest}`;
  const has = (kind: Fault['kind']) => faults.some((fault) => fault.kind === kind);
  if (has('denied')) return new AccessDeniedError(message);
  if (has('missing')) return new ImageNotFoundError(message);
  return has('blocked') ? new BlockedTargetError(message) : new ImageInvalidError(message);
}
