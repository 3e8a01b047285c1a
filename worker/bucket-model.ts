import { createHash } from 'node:crypto';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ModelLoadFailedError, StorageUnavailableError } from '../common/errors.ts';
import type { ObjectStore } from '../common/object-store.ts';
import { downloadModel } from './model-download.ts';
import type { ModelDownloadOptions } from './model-download.ts';
import { INDEX_FILE, checkModelKind, selectModelFiles } from './model-files.ts';

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
  const { store, cacheDirectory, signal } = options;
  const { bucket, prefix } = model;
  const name = `s3://${bucket}/${prefix}`;
  const keys = await store.list(bucket, prefix, { signal });
  const paths = keys.map((key) => key.slice(prefix.length));
  if (paths.includes(INDEX_FILE)) {
    const index = await store.getBytes({ bucket, key: prefix + INDEX_FILE }, { maxBytes: MAX_INDEX_BYTES, signal });
    if (index !== null) checkModelKind(index.toString('utf8'), name);
  }
  const { descriptions, weights } = selectModelFiles(paths, name);
  const sizes = new Map<string, number>();
  const version = createHash('sha256').update(name);
  for (const file of [...descriptions, ...weights]) {
    const head = await store.head({ bucket, key: prefix + file }, { signal });
    if (head === null) throw vanished(name, file);
    sizes.set(file, head.sizeBytes);
    version.update(`\0${file}\0${head.sizeBytes}\0${head.etag ?? ''}`);
  }
  const directory = path.join(cacheDirectory, 'models', `bucket--${version.digest('hex').slice(0, 32)}`);
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
  await downloadModel({ name, sizes, fetch }, directory, options);
  return directory;
}

function vanished(name: string, file: string): ModelLoadFailedError {
  return new ModelLoadFailedError(`${file} vanished from the base model ${name} while it was read: start again.`);
}
