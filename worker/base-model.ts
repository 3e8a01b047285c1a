import { existsSync } from 'node:fs';
import { readFile, readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import type { BaseModel } from '../activities/dependencies.ts';
import type { HubConfig } from '../common/config.ts';
import { BrushworkError, ModelLoadFailedError } from '../common/errors.ts';
import { reasonOf } from '../common/logger.ts';
import type { ObjectStore } from '../common/object-store.ts';
import { fetchBucketFile, fetchBucketModel, parseBucketFile, parseBucketModel } from './bucket-model.ts';
import { fetchHubFile, fetchHubModel, parseHubFile, parseHubId } from './hub-download.ts';
import { makeSound, refuseDamaged } from './model-damage.ts';
import type { ModelDownloadOptions } from './model-download.ts';
import { fingerprintModel } from './model-fingerprint.ts';
import {
  INDEX_FILE,
  UNET_CONFIG_FILE,
  VAE_CONFIG_FILE,
  checkModelKind,
  checkUnet,
  selectModelFiles,
  sideMultiplePx,
} from './model-files.ts';
import { convertSingleFile } from './single-file-model/convert.ts';
import type { ConvertOptions } from './single-file-model/convert.ts';
import { PICKLE_REMEDY } from './single-file-model/header.ts';

/** Weights as PyTorch saves them by itself. */
const PICKLE = /\.(ckpt|pt|pth|bin)$/i;

const SINGLE_FILE = /\.safetensors$/i;

/** What {@link resolveBaseModel} needs. */
export interface ResolveBaseModelOptions extends ModelDownloadOptions {
  /** Keeps fetched models and hashes between starts. */
  cacheDirectory: string;
  /** Serves models by their id. */
  hub: HubConfig;
  /** Serves `s3://` and `gs://`; without one they are refused. */
  store?: ObjectStore;
}

/**
 * Finds the base model that a setting names, fetches it where need be, and makes sure that it is one that can be trained.
 *
 * @param source - a directory in diffusers layout or a single `.safetensors` file, else a hub id (`org/name` or
 *   `org/name@revision`, a file as `org/name/file.safetensors`), or `s3://bucket/prefix` of a directory or a file (`gs://`
 *   too)
 * @param options - see {@link ResolveBaseModelOptions}
 * @throws ModelLoadFailedError saying what is missing, what was found instead, or why it could not be fetched
 * @throws ChecksumMismatchError when a download is not what the hub announced
 * @throws AccessDeniedError, StorageUnavailableError as the bucket's store answers
 */
export async function resolveBaseModel(source: string, options: ResolveBaseModelOptions): Promise<BaseModel> {
  try {
    const { directory, name } = await locate(source, options);
    return await openModel(directory, name, options);
  } catch (error) {
    options.signal.throwIfAborted();
    if (error instanceof BrushworkError) throw error;
    throw new ModelLoadFailedError(
      `The base model ${JSON.stringify(source)} can't be read: ${reasonOf(error)}. Check the disk and the folder's permissions.`,
      { cause: error },
    );
  }
}

async function locate(source: string, options: ResolveBaseModelOptions): Promise<{ directory: string; name: string }> {
  if (PICKLE.test(source) && !(await isDirectory(source))) {
    throw new ModelLoadFailedError(`The base model ${JSON.stringify(source)} is a PyTorch pickle: ${PICKLE_REMEDY}`);
  }
  const sound = (fetch: () => Promise<string>) => makeSound(source, fetch, options);
  const bucketModel = parseBucketModel(source);
  if (bucketModel !== null) {
    const { store } = options;
    if (store === undefined) {
      throw new ModelLoadFailedError(
        `${source} needs the settings of a store, which are absent here: name a directory or a file.`,
      );
    }
    const bucketFile = parseBucketFile(source);
    if (bucketFile !== null) {
      const fetchedInto = await sound(() => fetchBucketFile(bucketFile, { ...options, store }));
      const file = path.join(fetchedInto, path.posix.basename(bucketFile.key));
      return convert(file, singleFileName(source), { ...options, fetchedInto });
    }
    const directory = await sound(() => fetchBucketModel(bucketModel, { ...options, store }));
    return { directory, name: path.posix.basename(bucketModel.prefix) || bucketModel.bucket };
  }
  if (await isDirectory(source)) {
    const directory = path.resolve(source);
    await refuseDamaged(directory, options);
    return { directory, name: localName(directory) };
  }
  if (existsSync(source)) return convert(path.resolve(source), singleFileName(source), options);
  const hubFile = parseHubFile(source);
  if (hubFile !== null) {
    const fetchedInto = await sound(() => fetchHubFile(hubFile, options));
    return convert(path.join(fetchedInto, hubFile.file), hubFile.id, { ...options, fetchedInto });
  }
  if (SINGLE_FILE.test(source)) {
    throw new ModelLoadFailedError(
      `There is no file ${JSON.stringify(source)}: check the path. A file on a hub is named org/name/file.safetensors.`,
    );
  }
  const hubModel = parseHubId(source);
  if (hubModel !== null) return { directory: await sound(() => fetchHubModel(hubModel, options)), name: hubModel.id };
  throw new ModelLoadFailedError(
    `The base model ${JSON.stringify(source)} is not here: name a directory that holds a Stable Diffusion 1.x model in diffusers layout, a .safetensors file, a hub id like stable-diffusion-v1-5/stable-diffusion-v1-5, or s3://bucket/prefix.`,
  );
}

async function convert(
  file: string,
  name: string,
  options: ConvertOptions,
): Promise<{ directory: string; name: string }> {
  const directory = await makeSound(name, () => convertSingleFile(file, name, options), options);
  return { directory, name };
}

function singleFileName(source: string): string {
  return path.basename(source).replace(SINGLE_FILE, '');
}

/** Checks a model that lies on this machine and computes its fingerprint. */
async function openModel(directory: string, name: string, options: ResolveBaseModelOptions): Promise<BaseModel> {
  const paths = await listFiles(directory);
  // Other kinds lack some of our files: to say which kind it is tells more.
  if (paths.includes(INDEX_FILE)) checkModelKind(await readFile(path.join(directory, INDEX_FILE), 'utf8'), directory);
  const { descriptions, weights } = selectModelFiles(paths, directory);
  const unetConfig = await readFile(path.join(directory, UNET_CONFIG_FILE), 'utf8');
  checkUnet(unetConfig, directory);
  const vaeConfig = await readFile(path.join(directory, VAE_CONFIG_FILE), 'utf8');
  const hashed = [...descriptions.filter((file) => file !== INDEX_FILE), ...weights];
  const started = performance.now();
  const fingerprint = await fingerprintModel(directory, hashed, options.cacheDirectory, options.signal);
  const durationMs = Math.round(performance.now() - started);
  options.logger.debug({ baseModel: name, fingerprint, durationMs }, 'base model found');
  return { directory, fingerprint, name, sideMultiplePx: sideMultiplePx(unetConfig, vaeConfig, directory) };
}

/** Files of a model and of its parts' folders, which may be links. */
async function listFiles(directory: string): Promise<string[]> {
  const paths: string[] = [];
  for (const entry of await readdir(directory)) {
    const part = path.join(directory, entry);
    if (await isDirectory(part)) paths.push(...(await readdir(part)).map((name) => `${entry}/${name}`));
    else paths.push(entry);
  }
  return paths;
}

/** Folder name; in a cache of the hub's own tools the model's id, as the folder is named by a commit there. */
function localName(directory: string): string {
  const cached = /\/models--([^/]+?)--([^/]+)\/snapshots\/[^/]+$/.exec(directory);
  return cached === null ? path.basename(directory) : `${cached[1]}/${cached[2]}`;
}

async function isDirectory(file: string): Promise<boolean> {
  try {
    return (await stat(file)).isDirectory();
  } catch {
    return false;
  }
}
