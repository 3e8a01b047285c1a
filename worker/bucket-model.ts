import { createHash } from 'node:crypto';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ModelLoadFailedError, StorageUnavailableError } from '../common/errors.ts';
import type { ObjectLocation, ObjectStore } from '../common/object-store.ts';
import { downloadFiles, downloadModel } from './model-download.ts';
import type { ModelDownloadOptions, RemoteModel } from './model-download.ts';
import { INDEX_FILE, checkModelKind, selectModelFiles } from './model-files.ts';
import { readHeaderOf } from './single-file-model/header.ts';
import { refuseOtherKinds } from './single-file-model/other-kinds.ts';
import { SIDE_FILES } from './single-file-model/side-files.ts';

const ATTEMPTS = 5;
const FIRST_PAUSE_MS = 1_000;
const MAX_INDEX_BYTES = 2 ** 20;

/** A model in a bucket: all keys below `prefix`, which ends with a slash or is empty. */
export interface BucketModel {
  bucket: string;
  prefix: string;
}

/** What {@link fetchBucketModel} needs. */
export interface FetchBucketModelOptions extends ModelDownloadOptions {
  cacheDirectory: string;
  store: ObjectStore;
}

/**
 * Reads `s3://bucket/prefix` (or `gs://`, which the same store serves).
 *
 * @param text - a setting
 * @returns where the model lies, or null when the setting has another form
 */
export function parseBucketModel(text: string): BucketModel | null {
  const match = /^(?:s3|gs):\/\/([^/]+)\/?(.*?)\/*$/.exec(text);
  if (match === null) return null;
  const [, bucket = '', prefix = ''] = match;
  return { bucket, prefix: prefix === '' ? '' : `${prefix}/` };
}

/**
 * Fetches what training reads of a model in a bucket, unless the same version of it was fetched before.
 *
 * @param model - where it lies
 * @param options - see {@link FetchBucketModelOptions}
 * @returns the directory that holds it
 * @throws ModelLoadFailedError when it is incomplete or of another kind
 * @throws AccessDeniedError, StorageUnavailableError as the store answers
 */
export async function fetchBucketModel(model: BucketModel, options: FetchBucketModelOptions): Promise<string> {
  const { store, signal } = options;
  const { bucket, prefix } = model;
  const name = `s3://${bucket}/${prefix}`;
  const keys = await store.list(bucket, prefix, { signal });
  const paths = keys.map((key) => key.slice(prefix.length));
  if (paths.includes(INDEX_FILE)) {
    const index = await store.getBytes({ bucket, key: prefix + INDEX_FILE }, { maxBytes: MAX_INDEX_BYTES, signal });
    if (index !== null) checkModelKind(index.toString('utf8'), name);
  }
  const { descriptions, weights } = selectModelFiles(paths, name);
  const objects = { name, bucket, prefix, files: await sizesOf(store, model, [...descriptions, ...weights], signal) };
  for (const file of [...descriptions, ...weights]) if (!objects.files.has(file)) throw vanished(name, file);
  return fetchObjects(objects, options, (remote, target) => downloadModel(remote, target, options));
}

/**
 * Reads `s3://bucket/folder/model.safetensors` (or `gs://`).
 *
 * @param text - a setting
 * @returns the single file that it names, or null
 */
export function parseBucketFile(text: string): ObjectLocation | null {
  const match = /^(?:s3|gs):\/\/([^/]+)\/(.+\.safetensors)$/i.exec(text);
  return match?.[1] === undefined || match[2] === undefined ? null : { bucket: match[1], key: match[2] };
}

/**
 * Fetches a single-file model from a bucket with what lies beside it, unless the same version was fetched before.
 *
 * @param location - of the file
 * @param options - see {@link FetchBucketModelOptions}
 * @returns path of the file
 * @throws ModelLoadFailedError when there is none, or its head shows another kind
 * @throws AccessDeniedError, StorageUnavailableError as the store answers
 */
export async function fetchBucketFile(location: ObjectLocation, options: FetchBucketModelOptions): Promise<string> {
  const { bucket, key } = location;
  const fileName = path.posix.basename(key);
  const prefix = key.slice(0, key.length - fileName.length);
  const name = `s3://${bucket}/${key}`;
  const files = await sizesOf(options.store, { bucket, prefix }, [...SIDE_FILES, fileName], options.signal);
  if (!files.has(fileName)) throw new ModelLoadFailedError(`There is no ${name}: check bucket and key.`);
  const check = async () => {
    const read = async (startBytes: number, lengthBytes: number) => {
      const piece = await options.store.getRange(location, { startBytes, lengthBytes }, { signal: options.signal });
      if (piece === null) throw vanished(name, fileName);
      return piece;
    };
    const sizeBytes = files.get(fileName)?.sizeBytes ?? 0;
    refuseOtherKinds(await readHeaderOf({ sizeBytes, read }, name), name);
  };
  const directory = await fetchObjects({ name, bucket, prefix, files }, options, (remote, target) =>
    downloadFiles(remote, target, { ...options, check }),
  );
  return path.join(directory, fileName);
}

/** Objects that make a model. */
interface ModelObjects extends BucketModel {
  name: string;
  /** What {@link sizesOf} found. */
  files: ReadonlyMap<string, { sizeBytes: number; etag?: string }>;
}

/** Sizes and tags of those files that exist, by their path below the prefix. */
async function sizesOf(
  store: ObjectStore,
  { bucket, prefix }: BucketModel,
  files: readonly string[],
  signal: AbortSignal,
): Promise<Map<string, { sizeBytes: number; etag?: string }>> {
  const found = new Map<string, { sizeBytes: number; etag?: string }>();
  for (const file of files) {
    const head = await store.head({ bucket, key: prefix + file }, { signal });
    if (head !== null) found.set(file, head);
  }
  return found;
}

async function fetchObjects(
  { name, bucket, prefix, files }: ModelObjects,
  options: FetchBucketModelOptions,
  download: (remote: RemoteModel, directory: string) => Promise<void>,
): Promise<string> {
  const { store, signal } = options;
  const version = createHash('sha256').update(name);
  for (const [file, { sizeBytes, etag = '' }] of files) version.update(`\0${file}\0${sizeBytes}\0${etag}`);
  const directory = path.join(options.cacheDirectory, 'models', `bucket--${version.digest('hex').slice(0, 32)}`);
  const sizes = new Map([...files].map(([file, { sizeBytes }]) => [file, sizeBytes]));
  const fetch = async (relativePath: string, file: string, onBytes: (sizeBytes: number) => void) => {
    const maxBytes = sizes.get(relativePath) ?? 0;
    const location = { bucket, key: prefix + relativePath };
    for (let attempt = 1; ; attempt++) {
      try {
        const result = await store.downloadFile(location, file, { maxBytes, signal });
        if (result === null) throw vanished(name, relativePath);
        onBytes(result.sizeBytes);
        return;
      } catch (error) {
        if (!(error instanceof StorageUnavailableError) || attempt === ATTEMPTS) throw error;
        await sleep(FIRST_PAUSE_MS * 2 ** (attempt - 1), undefined, { signal });
      }
    }
  };
  await download({ name, sizes, fetch }, directory);
  return directory;
}

function vanished(name: string, file: string): ModelLoadFailedError {
  return new ModelLoadFailedError(`${file} vanished from the base model ${name} while it was read: start again.`);
}
