import { randomUUID } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { sizeOf } from './part-file.ts';

/** Names, lengths and hashes of a directory's files, written when all of them are there. */
const RECORD_FILE = '.complete.json';

/** What a record says of a file. */
export interface RecordedFile {
  sizeBytes: number;
  /** Lower-case hex; null: not known yet, as in the records of earlier versions, which held lengths alone. */
  sha256: string | null;
}

/** Files by relative path with forward slashes. */
export type ModelRecord = ReadonlyMap<string, RecordedFile>;

/**
 * Reads what was noted of a model's files.
 *
 * @param directory - of the model
 * @returns null when there is no record, or a damaged one
 */
export async function readRecord(directory: string): Promise<ModelRecord | null> {
  try {
    const content: unknown = JSON.parse(await readFile(path.join(directory, RECORD_FILE), 'utf8'));
    return new Map(Object.entries(content as object).map(([name, entry]) => [name, readEntry(entry)]));
  } catch {
    return null;
  }
}

function readEntry(entry: unknown): RecordedFile {
  if (typeof entry === 'number') return { sizeBytes: entry, sha256: null };
  const { sizeBytes, sha256 } = entry as Record<string, unknown>;
  if (typeof sizeBytes !== 'number' || typeof sha256 !== 'string') throw new TypeError('no entry of a record');
  return { sizeBytes, sha256 };
}

/**
 * Notes that all files of a model are there: what {@link isComplete} looks for.
 *
 * @param directory - of the model
 * @param files - all of them
 */
export async function writeRecord(directory: string, files: ModelRecord): Promise<void> {
  const entries = [...files].map(([name, file]) => [name, file.sha256 === null ? file.sizeBytes : file]);
  await writeAtomically(path.join(directory, RECORD_FILE), JSON.stringify(Object.fromEntries(entries)));
}

/**
 * Tells whether a model was made or fetched to its end and all of it is still there. Contents are not read: see
 * `makeSound`.
 *
 * @param directory - of the model
 */
export async function isComplete(directory: string): Promise<boolean> {
  const record = await readRecord(directory);
  if (record === null) return false;
  for (const [name, { sizeBytes }] of record) {
    if ((await sizeOf(path.join(directory, name))) !== sizeBytes) return false;
  }
  return true;
}

/** Writes a small file so that nobody sees half of it. */
export async function writeAtomically(file: string, text: string): Promise<void> {
  await mkdir(path.dirname(file), { recursive: true });
  const temporary = `${file}.${randomUUID()}.part`;
  await writeFile(temporary, text);
  await rename(temporary, file);
}
