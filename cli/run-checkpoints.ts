import { existsSync } from 'node:fs';
import { rename, rm } from 'node:fs/promises';
import { ChecksumMismatchError } from '../common/errors.ts';
import type { Trainer } from '../common/trainer.ts';
import { hashFile } from '../worker/write-stream.ts';
import type { OutputDirectory } from './output-directory.ts';
import { checkRecord, writeRecord } from './run-record.ts';
import type { RunRecord } from './run-record.ts';

/**
 * The checkpoints of one run: the newest and the one before. The record beside them holds the SHA-256 of each, and is
 * written before a new one takes its place, so that a run that is killed in between still finds what it may go on from.
 */
export class RunCheckpoints {
  readonly #target: OutputDirectory;
  readonly #record: RunRecord;
  /** SHA-256, the newest first. */
  #hashes: readonly string[];

  private constructor(target: OutputDirectory, record: RunRecord, hashes: readonly string[]) {
    this.#target = target;
    this.#record = record;
    this.#hashes = hashes;
  }

  /**
   * Looks at what an interrupted run left, or begins without.
   *
   * @param target - says which of the two
   * @param record - what the run is made from now
   * @param tell - receives a line when the newest checkpoint can't be used, but the one before can
   * @throws CheckpointIncompatibleError when the checkpoints are of another run; ChecksumMismatchError when all of them are
   *   damaged
   */
  static async open(target: OutputDirectory, record: RunRecord, tell: (line: string) => void): Promise<RunCheckpoints> {
    if (!target.resume) return new RunCheckpoints(target, record, []);
    const recorded = await checkRecord(target.recordFile, record);
    const newest = await keepSound(target, recorded, tell);
    // The one before counts on: it is still there, and the newest may be damaged before there is another.
    const others = (recorded ?? []).filter((hash) => hash !== newest);
    return new RunCheckpoints(target, record, [newest, ...others]);
  }

  /** What the run goes on from, or null when it begins. */
  get newest(): string | null {
    return this.#hashes.length === 0 ? null : this.#target.checkpointFile;
  }

  /** Writes the record, without which no checkpoint counts. */
  async writeRecord(): Promise<void> {
    await writeRecord(this.#target.recordFile, this.#record, this.#hashes);
  }

  /** Writes a checkpoint; the newest so far becomes the one before. */
  async save(trainer: Trainer): Promise<void> {
    const { checkpointFile, previousCheckpointFile } = this.#target;
    const file = partOf(checkpointFile);
    await trainer.saveCheckpoint(file);
    const { sha256 } = await hashFile(file);
    this.#hashes = [sha256, ...this.#hashes.slice(0, 1)];
    await this.writeRecord();
    if (existsSync(checkpointFile)) await rename(checkpointFile, previousCheckpointFile);
    await rename(file, checkpointFile);
  }

  /** Removes all of it: the run is finished. */
  async remove(): Promise<void> {
    const { checkpointFile, previousCheckpointFile, recordFile } = this.#target;
    // The newest last but for its record: a run that is killed in between can still go on from it.
    const files = [partOf(checkpointFile), previousCheckpointFile, checkpointFile, recordFile];
    for (const file of files) await rm(file, { force: true });
  }
}

function partOf(checkpointFile: string): string {
  return `${checkpointFile}.part`;
}

/** Puts the newest checkpoint that is as it was written in the newest's place, and returns its SHA-256. */
async function keepSound(
  { checkpointFile, previousCheckpointFile }: OutputDirectory,
  recorded: readonly string[] | null,
  tell: (line: string) => void,
): Promise<string> {
  const files = [checkpointFile, previousCheckpointFile].filter((file) => existsSync(file));
  for (const [index, file] of files.entries()) {
    const sha256 = await hashIfReadable(file);
    if (sha256 === null || (recorded !== null && !recorded.includes(sha256))) continue;
    if (index > 0) tell(`${checkpointFile} is damaged: going on from the checkpoint before it`);
    if (file !== checkpointFile) await rename(file, checkpointFile);
    return sha256;
  }
  const all = files.join(' and ');
  throw new ChecksumMismatchError(
    `${all} can't be gone on from: the bytes are not those that were written, or can't be read. Name another --output ` +
      'and train from the start, and look at the disk.',
  );
}

/** Null where the disk does not give the file back, which is another kind of damage. */
async function hashIfReadable(file: string): Promise<string | null> {
  return hashFile(file).then(
    ({ sha256 }) => sha256,
    () => null,
  );
}
