import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { ChecksumMismatchError, ModelLoadFailedError, StorageUnavailableError } from '../common/errors.ts';
import type { ObjectHead, ObjectLocation, ObjectStore } from '../common/object-store.ts';
import { downloadFiles, downloadModel } from './model-download.ts';
import type { ModelDownloadOptions, RemoteModel } from './model-download.ts';
import { INDEX_FILE, checkModelKind, selectModelFiles } from './model-files.ts';
import { fetchWhole, partOf } from './part-file.ts';
import type { WantedFile } from './part-file.ts';
import { persevere } from './persevere.ts';
import { readHeaderOf } from './single-file-model/header.ts';
import { refuseOtherKinds } from './single-file-model/other-kinds.ts';
import { SIDE_FILES } from './single-file-model/side-files.ts';

const MAX_INDEX_BYTES = 2 ** 20;

/** As the setting has it; the same store serves both. */
type Scheme = 's3' | 'gs';

/** A model in a bucket: all keys below `prefix`, which ends with a slash or is empty. */
export interface BucketModel {
  scheme: Scheme;
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
  const match = /^(s3|gs):\/\/([^/]+)\/?(.*?)\/*$/.exec(text);
  if (match === null) return null;
  const [, scheme, bucket = '', prefix = ''] = match;
  return { scheme: scheme as Scheme, bucket, prefix: prefix === '' ? '' : `${prefix}/` };
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
  const { scheme, bucket, prefix } = model;
  const name = `${scheme}://${bucket}/${prefix}`;
  const keys = await store.list(bucket, prefix, { signal });
  const paths = keys.map((key) => key.slice(prefix.length));
  if (paths.includes(INDEX_FILE)) {
    const index = await store.getBytes({ bucket, key: prefix + INDEX_FILE }, { maxBytes: MAX_INDEX_BYTES, signal });
    if (index !== null) checkModelKind(index.toString('utf8'), name);
  }
  const { descriptions, weights } = selectModelFiles(paths, name);
  const files = await headsOf(store, model, [...descriptions, ...weights], signal);
  for (const file of [...descriptions, ...weights]) if (!files.has(file)) throw changed(name, file);
  return fetchObjects({ name, bucket, prefix, key: prefix, files }, options, (remote, target) =>
    downloadModel(remote, target, options),
  );
}

/**
 * Reads `s3://bucket/folder/model.safetensors` (or `gs://`).
 *
 * @param text - a setting
 * @returns the single file that it names, or null
 */
export function parseBucketFile(text: string): BucketFile | null {
  const match = /^(s3|gs):\/\/([^/]+)\/(.+\.safetensors)$/i.exec(text);
  if (match === null) return null;
  const [, scheme, bucket = '', key = ''] = match;
  return { scheme: scheme as Scheme, bucket, key };
}

/** A model in a single file in a bucket. */
export interface BucketFile extends ObjectLocation {
  scheme: Scheme;
}

/**
 * Fetches a single-file model from a bucket with what lies beside it, unless the same version was fetched before.
 *
 * @param wanted - which file
 * @param options - see {@link FetchBucketModelOptions}
 * @returns the directory in which it lies under its own name
 * @throws ModelLoadFailedError when there is none, or its head shows another kind
 * @throws AccessDeniedError, StorageUnavailableError as the store answers
 */
export async function fetchBucketFile(wanted: BucketFile, options: FetchBucketModelOptions): Promise<string> {
  const { scheme, bucket, key } = wanted;
  const fileName = path.posix.basename(key);
  const prefix = key.slice(0, key.length - fileName.length);
  const name = `${scheme}://${bucket}/${key}`;
  const files = await headsOf(options.store, { bucket, prefix }, [...SIDE_FILES, fileName], options.signal);
  if (!files.has(fileName)) throw new ModelLoadFailedError(`There is no ${name}: check bucket and key.`);
  const check = async () => {
    const read = async (startBytes: number, lengthBytes: number) => {
      const range = { startBytes, lengthBytes };
      const piece = await options.store.getRange({ bucket, key }, range, { signal: options.signal });
      if (piece === null) throw changed(name, fileName);
      return piece;
    };
    const sizeBytes = files.get(fileName)?.sizeBytes ?? 0;
    refuseOtherKinds(await readHeaderOf({ sizeBytes, read }, name), name);
  };
  return fetchObjects({ name, bucket, prefix, key, files }, options, (remote, target) =>
    downloadFiles(remote, target, { ...options, check }),
  );
}

/** Objects that make a model. */
interface ModelObjects {
  /** As in the setting. */
  name: string;
  bucket: string;
  /** What the files' paths are relative to. */
  prefix: string;
  /** Of the setting. */
  key: string;
  /** What {@link headsOf} found. */
  files: ReadonlyMap<string, ObjectHead>;
}

/** What the store knows of those files that exist, by their path below the prefix. */
async function headsOf(
  store: ObjectStore,
  { bucket, prefix }: Pick<BucketModel, 'bucket' | 'prefix'>,
  files: readonly string[],
  signal: AbortSignal,
): Promise<Map<string, ObjectHead>> {
  const found = new Map<string, ObjectHead>();
  for (const file of files) {
    const head = await store.head({ bucket, key: prefix + file }, { signal, wantsSha256: true });
    if (head !== null) found.set(file, head);
  }
  return found;
}

async function fetchObjects(
  objects: ModelObjects,
  options: FetchBucketModelOptions,
  download: (remote: RemoteModel, directory: string) => Promise<void>,
): Promise<string> {
  const { name, files } = objects;
  const directory = path.join(options.cacheDirectory, 'models', `bucket--${versionOf(objects)}`);
  const sizes = new Map([...files].map(([file, { sizeBytes }]) => [file, sizeBytes]));
  const fetch = (relativePath: string, file: string, onBytes: (sizeBytes: number) => void) =>
    fetchObject(objects, relativePath, { file, onBytes }, options);
  await download({ name, sizes, fetch }, directory);
  return directory;
}

/** The same objects have the same version, whichever scheme names them. */
function versionOf({ bucket, key, files }: ModelObjects): string {
  const version = createHash('sha256').update(`s3://${bucket}/${key}`);
  for (const [file, { sizeBytes, etag, sha256 = '' }] of files) {
    version.update(`\0${file}\0${sizeBytes}\0${etag ?? sha256}`);
  }
  return version.digest('hex').slice(0, 32);
}

/** Fetches one object, going on where an earlier try, of this process or another, has ended. */
async function fetchObject(
  { name, bucket, prefix, files }: ModelObjects,
  relativePath: string,
  target: Pick<WantedFile, 'file' | 'onBytes'>,
  options: FetchBucketModelOptions,
): Promise<string> {
  const { store, signal } = options;
  const head = files.get(relativePath);
  if (head === undefined) throw changed(name, relativePath);
  const { sizeBytes, etag = null, sha256 } = head;
  const announced = sha256 === undefined ? null : ({ algorithm: 'sha256', digest: sha256 } as const);
  // What was fetched of another version would not be noticed.
  if (etag === null && announced === null) await rm(partOf(target.file), { force: true });
  const location = { bucket, key: prefix + relativePath };
  const perseverance = {
    ...options,
    name: `${relativePath} of ${name}`,
    source: 'store' as const,
    isPassing: (error: unknown) => error instanceof StorageUnavailableError,
    giveUp: (error: unknown) => error,
  };
  return fetchWhole(
    { ...target, sizeBytes, announced },
    async (part) =>
      persevere(async (onAdvance) => {
        const request = { startBytes: await part.startBytes(), etag };
        const write = (body: AsyncIterable<Uint8Array>, startBytes: number) =>
          part.write(body, startBytes, onAdvance).then(() => true);
        if ((await store.readRest(location, request, write, { signal })) === null) throw changed(name, relativePath);
      }, perseverance),
    (found) =>
      new ChecksumMismatchError(
        `${relativePath} of ${name} came with the SHA-256 ${found}, but the store says ${sha256}: upload it again, or correct its metadata.`,
      ),
  );
}

function changed(name: string, file: string): ModelLoadFailedError {
  return new ModelLoadFailedError(
    `${file} of the base model ${name} vanished or changed while it was read: start again.`,
  );
}
