import { createHash } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import {
  AccessDeniedError,
  BlockedTargetError,
  ImageInvalidError,
  ImageNotFoundError,
  InvalidRequestError,
} from '../common/errors.ts';
import type { BrushworkError } from '../common/errors.ts';
import { captionLocation, parseImageUri, redactUri } from '../common/image-uri.ts';
import type { ImageUriRules } from '../common/image-uri.ts';
import type { ImageLocation, ObjectStore } from '../common/object-store.ts';
import type { ResizeMode } from '../common/types.ts';
import { MAX_CAPTION_BYTES, captionFile, readCaption } from '../native/trainer/caption.ts';
import { type DataReport, type PictureReport, inspectFile, reportOn } from '../native/trainer/data-report.ts';
import { byCodePoint } from '../native/trainer/dataset.ts';
import { JOB_PICTURE_LIMITS, PictureFault } from '../native/trainer/picture.ts';
import { inParallel } from './in-parallel.ts';
import { pictureNames } from './picture-names.ts';

const PARALLEL = 8;
/** What a web server may answer with success for a file that it does not have. */
const WEB_PAGE = /^<(!doctype|html)/i;

/** A picture on the pod's disk. */
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

/** What is wrong with one picture; collected, so that all are named at once. */
class Fault {
  readonly kind: 'denied' | 'missing' | 'blocked' | 'invalid';
  readonly text: string;

  constructor(kind: Fault['kind'], text: string) {
    this.kind = kind;
    this.text = text;
  }
}

/**
 * Brings a job's pictures and captions onto the disk and looks at each one. Every picture has a caption file afterwards.
 *
 * @param uris - as in the message
 * @returns the pictures in the order of the message, and the report on them in that of the recipe
 * @throws AccessDeniedError, ImageNotFoundError, BlockedTargetError or ImageInvalidError naming every unusable picture
 */
export async function fetchPictures(
  uris: readonly string[],
  options: FetchOptions,
): Promise<{ pictures: FetchedPicture[]; report: DataReport }> {
  const locations = uris.map((uri) => locate(uri, options.rules));
  const usable = locations.filter((location) => !(location instanceof Fault));
  const names = pictureNames(usable);
  const nameOf = new Map(usable.map((location, index) => [location, names[index] ?? '']));
  const outcomes = await inParallel(locations, PARALLEL, async (location, index) => {
    if (location instanceof Fault) return location;
    const shown = redactUri(uris[index] ?? '');
    const picture = await fetchPicture(location, nameOf.get(location) ?? '', shown, options);
    options.onPicture();
    return picture;
  });
  const faults = outcomes.filter((outcome) => outcome instanceof Fault);
  if (faults.length > 0) throw errorOf(faults, uris.length);
  const pictures = outcomes.flatMap((outcome) => (outcome instanceof Fault ? [] : [outcome]));
  const reports = pictures.map(({ report }) => report).sort((a, b) => byCodePoint(a.name, b.name));
  return { pictures, report: reportOn(reports) };
}

function locate(uri: string, rules: ImageUriRules): ImageLocation | Fault {
  try {
    return parseImageUri(uri, rules);
  } catch (error) {
    if (error instanceof BlockedTargetError) return new Fault('blocked', error.message);
    if (error instanceof InvalidRequestError) return new Fault('invalid', error.message);
    throw error;
  }
}

async function fetchPicture(
  location: ImageLocation,
  name: string,
  shown: string,
  options: FetchOptions,
): Promise<FetchedPicture | Fault> {
  const { store, directory, signal, fallbackCaption, plan } = options;
  const file = path.join(directory, name);
  try {
    const fetched = await store.downloadImage(location, file, { maxBytes: JOB_PICTURE_LIMITS.maxBytes, signal });
    if (fetched === null) return new Fault('missing', `${shown} does not exist`);
    const { captionSha256, captionFrom } = await fetchCaption(location, name, options);
    const found = await inspectFile(directory, name, { ...plan, limits: JOB_PICTURE_LIMITS, fallbackCaption });
    if (found.faults.length > 0) return new Fault('invalid', `${shown} ${found.faults.join(', and ')}`);
    return { name, sha256: fetched.sha256, captionSha256, report: { ...found, captionFrom } };
  } catch (error) {
    if (error instanceof InvalidRequestError) return new Fault('invalid', `${shown}: ${error.message}`);
    if (error instanceof AccessDeniedError) return new Fault('denied', `${shown}: ${error.message}`);
    if (error instanceof BlockedTargetError) return new Fault('blocked', error.message);
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

function errorOf(faults: readonly Fault[], pictureCount: number): BrushworkError {
  const text = faults.map((fault) => fault.text.replace(/\.$/, '')).join('; ');
  const message = `${faults.length} of ${pictureCount} images can't be used: ${text}. Replace or remove them.`;
  const has = (kind: Fault['kind']) => faults.some((fault) => fault.kind === kind);
  if (has('denied')) return new AccessDeniedError(message);
  if (has('missing')) return new ImageNotFoundError(message);
  return has('blocked') ? new BlockedTargetError(message) : new ImageInvalidError(message);
}
