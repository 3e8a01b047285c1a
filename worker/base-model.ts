import { readFile, readdir, stat } from 'node:fs/promises';
import path from 'node:path';
import type { BaseModel } from '../activities/dependencies.ts';
import { ModelLoadFailedError } from '../common/errors.ts';
import type { Logger } from '../common/logger.ts';
import { fingerprintModel } from './model-fingerprint.ts';
import { INDEX_FILE, checkModelKind, selectModelFiles } from './model-files.ts';

/** What {@link resolveBaseModel} needs. */
export interface ResolveBaseModelOptions {
  /** Keeps fetched models and hashes between starts. */
  cacheDirectory: string;
  logger: Logger;
  /** Ends downloads and hashing. */
  signal: AbortSignal;
}

/**
 * Finds the base model that a setting names and makes sure that it is one that can be trained.
 *
 * @param source - a directory in diffusers layout
 * @param options - see {@link ResolveBaseModelOptions}
 * @throws ModelLoadFailedError saying what is missing or what was found instead
 */
export async function resolveBaseModel(source: string, options: ResolveBaseModelOptions): Promise<BaseModel> {
  if (!(await isDirectory(source))) {
    throw new ModelLoadFailedError(
      `The base model ${JSON.stringify(source)} is not a directory: set BASE_MODEL to one with a Stable Diffusion 1.x model in diffusers layout.`,
    );
  }
  const directory = path.resolve(source);
  return openModel(directory, localName(directory), options);
}

/** Checks a model that lies on this machine and computes its fingerprint. */
async function openModel(directory: string, name: string, options: ResolveBaseModelOptions): Promise<BaseModel> {
  const paths = await listFiles(directory);
  // Other kinds lack some of our files: to say which kind it is tells more.
  if (paths.includes(INDEX_FILE)) checkModelKind(await readFile(path.join(directory, INDEX_FILE), 'utf8'), directory);
  const { descriptions, weights } = selectModelFiles(paths, directory);
  const hashed = [...descriptions.filter((file) => file !== INDEX_FILE), ...weights];
  const started = performance.now();
  const fingerprint = await fingerprintModel(directory, hashed, options.cacheDirectory, options.signal);
  const durationMs = Math.round(performance.now() - started);
  options.logger.debug({ baseModel: name, fingerprint, durationMs }, 'base model found');
  return { directory, fingerprint, name };
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
