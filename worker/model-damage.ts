import { rm } from 'node:fs/promises';
import path from 'node:path';
import { ModelLoadFailedError } from '../common/errors.ts';
import type { Logger } from '../common/logger.ts';
import { hashModelFiles } from './model-fingerprint.ts';
import { withFileLock } from './model-lock.ts';
import { readRecord, writeRecord } from './model-record.ts';
import { sizeOf } from './part-file.ts';

/** What looking for damage needs. */
export interface DamageOptions {
  /** Keeps hashes between starts: what was hashed is not read again for the model's fingerprint. */
  cacheDirectory: string;
  logger: Logger;
  signal: AbortSignal;
}

/**
 * Makes or fetches a model into the cache, and once more where it differs from what was noted when it came there.
 *
 * @param name - how the model is called in errors and in the log
 * @param make - finds the directory that holds it, and makes or fetches the files that are not there
 * @param options - see {@link DamageOptions}
 * @returns that directory
 * @throws ModelLoadFailedError when what was made anew differs as well; whatever `make` throws
 */
export async function makeSound(name: string, make: () => Promise<string>, options: DamageOptions): Promise<string> {
  for (let isSecond = false; ; isSecond = true) {
    const directory = await make();
    const damaged = await findDamaged(directory, { ...options, notesHashes: true });
    if (damaged.length === 0) return directory;
    if (isSecond) throw damage(name, directory, damaged, "This machine's disk or memory is faulty: take it out.");
    options.logger.warn(
      { baseModel: name, directory, damaged },
      'files of the base model in the cache are not what was put there: they are replaced',
    );
    const onWait = () => options.logger.info({ baseModel: name }, 'another process is working on the base model');
    await withFileLock(`${directory}.lock`, { signal: options.signal, onWait }, async () => {
      // Whoever held the lock may have replaced them.
      const stillDamaged = await findDamaged(directory, { ...options, notesHashes: true });
      for (const file of stillDamaged) await rm(path.join(directory, file), { force: true });
    });
  }
}

/**
 * Refuses a directory that has a record of ours but other contents: one that was named itself, so that nobody knows where
 * it came from.
 *
 * @param directory - of the model
 * @param options - see {@link DamageOptions}
 * @throws ModelLoadFailedError naming the files
 */
export async function refuseDamaged(directory: string, options: DamageOptions): Promise<void> {
  const damaged = await findDamaged(directory, { ...options, notesHashes: false });
  if (damaged.length === 0) return;
  const remedy = 'Fetch it again; if it was changed on purpose, delete .complete.json there.';
  throw damage(path.basename(directory), directory, damaged, remedy);
}

function damage(name: string, directory: string, damaged: readonly string[], remedy: string): ModelLoadFailedError {
  return new ModelLoadFailedError(
    `The base model ${name} in ${directory} is not what was put there (by SHA-256: ${damaged.join(', ')}). ${remedy}`,
  );
}

/** Files whose content is not what the record says; with `notesHashes`, hashes that it lacks are added to it. */
async function findDamaged(
  directory: string,
  { cacheDirectory, signal, notesHashes }: DamageOptions & { notesHashes: boolean },
): Promise<string[]> {
  const record = await readRecord(directory);
  if (record === null) return [];
  const present: string[] = [];
  for (const name of record.keys()) if ((await sizeOf(path.join(directory, name))) !== null) present.push(name);
  const hashes = await hashModelFiles(directory, present, cacheDirectory, signal);
  const noted = new Map(
    [...record].map(([name, file]) => [name, { ...file, sha256: file.sha256 ?? hashes.get(name) ?? null }]),
  );
  const isNew = [...record].some(([name, { sha256 }]) => sha256 !== (noted.get(name)?.sha256 ?? null));
  if (notesHashes && isNew) await writeRecord(directory, noted);
  return present.filter((name) => hashes.get(name) !== noted.get(name)?.sha256);
}
