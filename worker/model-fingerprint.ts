import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { writeAtomically } from './model-record.ts';
import { hashFile } from './write-stream.ts';

/** What a hash was computed from: as long as none of these changes, the bytes count as the same. */
interface HashedFile {
  sizeBytes: number;
  modifiedNs: string;
  changedNs: string;
  sha256: string;
}

/** Hashes by absolute path. */
type HashCache = Record<string, HashedFile>;

/**
 * A hash over names and contents of a model's files: equal on every machine that holds the same model. Hashes of files
 * that did not change since are taken from the cache, since reading gigabytes takes a while.
 *
 * @param directory - the model
 * @param files - relative paths with forward slashes
 * @param cacheDirectory - where hashes are kept between calls
 * @param signal - ends the reading
 * @returns SHA-256, lower-case hex
 */
export async function fingerprintModel(
  directory: string,
  files: readonly string[],
  cacheDirectory: string,
  signal: AbortSignal,
): Promise<string> {
  const total = createHash('sha256');
  for (const [name, sha256] of await hashModelFiles(directory, files, cacheDirectory, signal)) {
    total.update(`${name}\0${sha256}\n`);
  }
  return total.digest('hex');
}

/**
 * The hashes of files' contents, from the cache where they did not change since.
 *
 * @param root - a directory, or a file with the single name `''`; hashes are kept by it
 * @param names - relative paths with forward slashes
 * @param cacheDirectory - where hashes are kept between calls
 * @param signal - ends the reading
 * @returns SHA-256, lower-case hex, in the names' byte order so that no locale can change it
 */
export async function hashModelFiles(
  root: string,
  names: readonly string[],
  cacheDirectory: string,
  signal: AbortSignal,
): Promise<Map<string, string>> {
  const absolute = path.resolve(root);
  const cacheFile = path.join(cacheDirectory, 'model-hashes', `${sha256Of(absolute)}.json`);
  const known = await readCache(cacheFile);
  // Others may have asked for other files of the same model.
  const hashes: HashCache = { ...known };
  const found = new Map<string, string>();
  for (const name of [...names].sort()) {
    signal.throwIfAborted();
    const file = path.join(absolute, name);
    const hashed = await hashUnlessKnown(file, known[file], signal);
    hashes[file] = hashed;
    found.set(name, hashed.sha256);
  }
  if (JSON.stringify(hashes) !== JSON.stringify(known)) await writeAtomically(cacheFile, JSON.stringify(hashes));
  return found;
}

async function hashUnlessKnown(file: string, known: HashedFile | undefined, signal: AbortSignal): Promise<HashedFile> {
  const { size, mtimeNs, ctimeNs } = await stat(file, { bigint: true });
  // All models of one kind are equally long, and a copy may keep its time: the time of change can't be set.
  const state = { sizeBytes: Number(size), modifiedNs: String(mtimeNs), changedNs: String(ctimeNs) };
  if (
    known?.sizeBytes === state.sizeBytes &&
    known.modifiedNs === state.modifiedNs &&
    known.changedNs === state.changedNs
  ) {
    return known;
  }
  const { sha256 } = await hashFile(file, signal);
  return { ...state, sha256 };
}

async function readCache(file: string): Promise<HashCache> {
  try {
    return JSON.parse(await readFile(file, 'utf8')) as HashCache;
  } catch {
    // Absent or damaged: everything is hashed once more.
    return {};
  }
}

function sha256Of(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
