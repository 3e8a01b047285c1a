import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { writeAtomically } from './model-download.ts';
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
  const root = path.resolve(directory);
  const cacheFile = path.join(cacheDirectory, 'model-hashes', `${sha256Of(root)}.json`);
  const known = await readCache(cacheFile);
  const hashes: HashCache = {};
  const total = createHash('sha256');
  // Byte order, so that no locale can change the result.
  for (const name of [...files].sort()) {
    signal.throwIfAborted();
    const file = path.join(root, name);
    const hashed = await hashUnlessKnown(file, known[file]);
    hashes[file] = hashed;
    total.update(`${name}\0${hashed.sha256}\n`);
  }
  if (JSON.stringify(hashes) !== JSON.stringify(known)) await writeAtomically(cacheFile, JSON.stringify(hashes));
  return total.digest('hex');
}

async function hashUnlessKnown(file: string, known: HashedFile | undefined): Promise<HashedFile> {
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
  const { sha256 } = await hashFile(file);
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
