import { mkdir, readFile, readdir, rm, statfs } from 'node:fs/promises';
import path from 'node:path';
import { ModelLoadFailedError } from '../common/errors.ts';
import type { Logger } from '../common/logger.ts';
import { INDEX_FILE, UNET_CONFIG_FILE, checkModelKind, checkUnet, selectModelFiles } from './model-files.ts';
import { withFileLock } from './model-lock.ts';
import { isComplete, readRecord, writeRecord } from './model-record.ts';
import { partOf, sizeOf } from './part-file.ts';

/** What a process leaves that is killed while it writes; `<file>.part`, from which a download goes on, is another thing. */
const REMAIN = /\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.part$/;

const REPORT_INTERVAL_MS = 10_000;

/** How far a download is, or what else a model needs before it can be opened. */
export interface ModelProgress {
  /** Absent: a download. */
  activity?: 'converting';
  doneBytes: number;
  totalBytes: number;
}

/** What downloads of models need. */
export interface ModelDownloadOptions {
  logger: Logger;
  signal: AbortSignal;
  /** First pause between two tries; it doubles. Default: a second. */
  firstPauseMs?: number;
  /** Called often. */
  onProgress?: (progress: ModelProgress) => void;
}

/** A model somewhere else. */
export interface RemoteModel {
  /** How it is called in errors and in the log. */
  name: string;
  /** Length of each file in bytes, by relative path with forward slashes. */
  sizes: ReadonlyMap<string, number>;
  /**
   * Fetches one file, whole and checked, or not at all.
   *
   * @param relativePath - one of `sizes`
   * @param file - where to write it; its folder exists
   * @param onBytes - called with the length that has arrived so far
   * @returns its SHA-256, lower-case hex
   */
  fetch: (relativePath: string, file: string, onBytes: (sizeBytes: number) => void) => Promise<string>;
}

/**
 * Fetches what training reads of a model into a directory. What is there already is kept, so that an interrupted download
 * goes on; of several processes that want the same model, one fetches it.
 *
 * @param model - what to fetch
 * @param directory - where to; nothing but this version of this model ever lies there
 * @param options - see {@link ModelDownloadOptions}
 * @throws ModelLoadFailedError when the model is of another kind, or the disk too full
 */
export async function downloadModel(
  model: RemoteModel,
  directory: string,
  options: ModelDownloadOptions,
): Promise<void> {
  await download(model, directory, options, async (fetch) => {
    // Other kinds of model lack some of our files: to say which kind it is tells more.
    if (model.sizes.has(INDEX_FILE)) {
      const file = await fetch(INDEX_FILE);
      checkModelKind(await readFile(file, 'utf8'), model.name);
    }
    const { descriptions, weights } = selectModelFiles([...model.sizes.keys()], model.name);
    // The small files first: a model that they give away is refused before its weights are fetched.
    return [...descriptions, ...weights];
  });
}

/**
 * The same for files that are named: a model in a single file, and what lies beside it.
 *
 * @param model - all of its files are fetched, in the order of `sizes`
 * @param directory - where to; nothing but these files ever lies there
 * @param options - see {@link ModelDownloadOptions}; `check` is called before anything is fetched
 * @throws ModelLoadFailedError when the disk is too full; whatever `check` throws
 */
export async function downloadFiles(
  model: RemoteModel,
  directory: string,
  options: ModelDownloadOptions & { check: () => Promise<void> },
): Promise<void> {
  await download(model, directory, options, async () => {
    await options.check();
    return [...model.sizes.keys()];
  });
}

async function download(
  model: RemoteModel,
  directory: string,
  options: ModelDownloadOptions,
  chooseFiles: (fetch: (name: string) => Promise<string>) => Promise<readonly string[]>,
): Promise<void> {
  const { logger, signal } = options;
  await mkdir(directory, { recursive: true });
  const onWait = () => logger.info({ baseModel: model.name }, 'another process is downloading the base model');
  await withFileLock(`${directory}.lock`, { signal, onWait }, async () => {
    if (await isComplete(directory)) return;
    await removeRemains(directory);
    const hashes = new Map([...((await readRecord(directory)) ?? [])].map(([name, { sha256 }]) => [name, sha256]));
    const fetch = async (name: string, onBytes: (sizeBytes: number) => void = () => undefined): Promise<string> => {
      signal.throwIfAborted();
      const file = path.join(directory, name);
      await mkdir(path.dirname(file), { recursive: true });
      // A file gets its name only when it is whole and checked.
      if ((await sizeOf(file)) !== sizeIn(model, name)) hashes.set(name, await model.fetch(name, file, onBytes));
      return file;
    };
    const files = await chooseFiles(fetch);
    const progress = new ProgressReport(model, files, options);
    await checkSpace(directory, model, files);
    logger.info({ baseModel: model.name, totalBytes: progress.totalBytes, directory }, 'downloading the base model');
    for (const name of files) {
      const file = await fetch(name, (sizeBytes) => progress.update(name, sizeBytes));
      progress.update(name, sizeIn(model, name));
      if (name === UNET_CONFIG_FILE) checkUnet(await readFile(file, 'utf8'), model.name);
    }
    const recorded = (name: string) => ({ sizeBytes: sizeIn(model, name), sha256: hashes.get(name) ?? null });
    await writeRecord(directory, new Map(files.map((name) => [name, recorded(name)])));
    logger.info({ baseModel: model.name, directory }, 'base model downloaded');
  });
}

/** Under the lock nobody else writes here. */
async function removeRemains(directory: string): Promise<void> {
  for (const name of await readdir(directory, { recursive: true })) {
    if (REMAIN.test(name)) await rm(path.join(directory, name), { force: true });
  }
}

async function checkSpace(directory: string, model: RemoteModel, files: readonly string[]): Promise<void> {
  let missingBytes = 0;
  for (const name of files) {
    const file = path.join(directory, name);
    const presentBytes = (await sizeOf(file)) ?? (await sizeOf(partOf(file))) ?? 0;
    missingBytes += Math.max(0, sizeIn(model, name) - presentBytes);
  }
  await checkFreeSpace(directory, model.name, missingBytes);
}

/**
 * Refuses to begin what the disk has no room for.
 *
 * @param directory - where it would go; it exists
 * @param name - how the model is called in errors
 * @param missingBytes - what is still to be written
 * @throws ModelLoadFailedError saying how much is free
 */
export async function checkFreeSpace(directory: string, name: string, missingBytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(directory);
  if (bavail * bsize >= missingBytes) return;
  throw new ModelLoadFailedError(
    `The base model ${name} needs ${mebibytes(missingBytes)} more in ${directory}, but only ${mebibytes(bavail * bsize)} are free: make room, or set XDG_CACHE_HOME to a bigger disk.`,
  );
}

const mebibytes = (bytes: number) => `${Math.ceil(bytes / 2 ** 20)} MiB`;

function sizeIn({ sizes }: RemoteModel, name: string): number {
  return sizes.get(name) ?? 0;
}

/** Adds up the files and says now and then how far they are. */
class ProgressReport {
  readonly totalBytes: number;
  readonly #model: RemoteModel;
  readonly #options: ModelDownloadOptions;
  readonly #done = new Map<string, number>();
  #lastLogMs = performance.now();

  constructor(model: RemoteModel, files: readonly string[], options: ModelDownloadOptions) {
    this.#model = model;
    this.#options = options;
    this.totalBytes = files.reduce((sum, name) => sum + sizeIn(model, name), 0);
  }

  update(name: string, sizeBytes: number): void {
    this.#done.set(name, sizeBytes);
    const { totalBytes } = this;
    const doneBytes = [...this.#done.values()].reduce((sum, size) => sum + size, 0);
    this.#options.onProgress?.({ doneBytes, totalBytes });
    if (performance.now() - this.#lastLogMs < REPORT_INTERVAL_MS) return;
    this.#lastLogMs = performance.now();
    const percent = Math.floor((100 * doneBytes) / totalBytes);
    this.#options.logger.info(
      { baseModel: this.#model.name, file: name, doneBytes, totalBytes, percent },
      'base model on its way',
    );
  }
}
