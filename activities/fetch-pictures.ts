import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { captionFile } from '../native/trainer/dataset.ts';
import { JOB_PICTURE_LIMITS, PictureFault, decodePicture } from '../native/trainer/picture.ts';
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
import { inParallel } from './in-parallel.ts';
import { pictureNames } from './picture-names.ts';

const PARALLEL = 8;
const MAX_CAPTION_BYTES = 64 * 1024;
/** What a web server may answer with success for a file that it does not have. */
const WEB_PAGE = /^<(!doctype|html)/i;
/** Decoding proves that the picture is whole; the result is thrown away, so it may be small. */
const PROBE_SIDE_PX = 64;

/** A picture on the pod's disk. */
export interface FetchedPicture {
  name: string;
  sha256: string;
  captionSha256: string;
  /** False when the caption is the fallback. */
  hasOwnCaption: boolean;
}

/** How {@link fetchPictures} works. */
export interface FetchOptions {
  store: ObjectStore;
  rules: ImageUriRules;
  /** Empty directory that receives pictures and captions. */
  directory: string;
  /** Caption of a picture that has none of its own. */
  fallbackCaption: string;
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
 * Brings a job's pictures and captions onto the disk and checks each one. Every picture has a caption file afterwards.
 *
 * @param uris - as in the message
 * @returns in the order of the message
 * @throws AccessDeniedError, ImageNotFoundError, BlockedTargetError or ImageInvalidError naming every unusable picture
 */
export async function fetchPictures(uris: readonly string[], options: FetchOptions): Promise<FetchedPicture[]> {
  const locations = uris.map((uri) => locate(uri, options.rules));
  const usable = locations.filter((location) => !(location instanceof Fault));
  const names = pictureNames(usable);
  const nameOf = new Map(usable.map((location, index) => [location, names[index] ?? '']));
  const pictures = await inParallel(locations, PARALLEL, async (location, index) => {
    if (location instanceof Fault) return location;
    const shown = redactUri(uris[index] ?? '');
    const picture = await fetchPicture(location, nameOf.get(location) ?? '', shown, options);
    options.onPicture();
    return picture;
  });
  const faults = pictures.filter((picture) => picture instanceof Fault);
  if (faults.length > 0) throw errorOf(faults, uris.length);
  return pictures.flatMap((picture) => (picture instanceof Fault ? [] : [picture]));
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
  const { store, directory, signal } = options;
  const file = path.join(directory, name);
  try {
    const fetched = await store.downloadImage(location, file, { maxBytes: JOB_PICTURE_LIMITS.maxBytes, signal });
    if (fetched === null) return new Fault('missing', `${shown} does not exist`);
    await decodePicture(await readFile(file), PROBE_SIDE_PX, JOB_PICTURE_LIMITS);
    return { name, sha256: fetched.sha256, ...(await fetchCaption(location, name, options)) };
  } catch (error) {
    if (error instanceof PictureFault) return new Fault('invalid', `${shown} ${error.message}`);
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
): Promise<{ captionSha256: string; hasOwnCaption: boolean }> {
  const file = path.join(directory, captionFile(name));
  const from = captionLocation(location);
  const fetched = from === null ? null : await fetchIfAllowed(store, from, file, signal);
  const text = fetched === null ? '' : (await readFile(file, 'utf8')).trim();
  if (fetched !== null && text !== '' && !WEB_PAGE.test(text)) {
    return { captionSha256: fetched, hasOwnCaption: true };
  }
  await writeFile(file, fallbackCaption);
  return { captionSha256: createHash('sha256').update(fallbackCaption).digest('hex'), hasOwnCaption: false };
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
