import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { withDigest, withoutDigest } from '../common/digest.ts';
import { CheckpointIncompatibleError } from '../common/errors.ts';
import { fileFault } from '../common/file-fault.ts';
import type { TrainerJob } from '../common/trainer.ts';
import { TRAINING_CONFIG_KEYS } from '../common/training-config-keys.ts';
import { trainingConfigJson } from '../common/training-config.ts';
import { writeAtomically } from '../common/write-atomically.ts';
import { captionFile } from '../native/trainer/caption.ts';
import { listPictures } from '../native/trainer/dataset.ts';

/**
 * What a checkpoint was made from, beside what it says of itself (see `docs/training.md`): lies next to it, so that a
 * resume with other pictures is refused instead of training on with them.
 */
export interface RunRecord {
  /** See `fingerprintModel`. */
  baseModel: string;
  /** SHA-256 of each picture, by name. */
  pictures: Record<string, string>;
  /** SHA-256 of each picture's text file, or of the fallback caption, by the picture's name. */
  captions: Record<string, string>;
  /** Keys of the configuration that decide what is made of both. Keys at their default are left out. */
  preparation: Record<string, string>;
}

/** What the trainer's own check of a checkpoint can't see. */
const PREPARATION_KEYS = ['resolution', 'resize_mode', 'trigger_word', 'validation_pictures'];

/**
 * Describes what a run is made from.
 *
 * @param job - its pictures and fallback caption
 * @param baseModelFingerprint - of its base model
 */
export async function recordOf(job: TrainerJob, baseModelFingerprint: string): Promise<RunRecord> {
  const record: RunRecord = {
    baseModel: baseModelFingerprint,
    pictures: {},
    captions: {},
    preparation: preparationOf(job),
  };
  for (const name of await listPictures(job.imageDirectory)) {
    const caption = await readOrNull(path.join(job.imageDirectory, captionFile(name)));
    // What can't be read is named by the trainer, together with what can't be decoded.
    record.pictures[name] = sha256Of((await readOrNull(path.join(job.imageDirectory, name))) ?? '');
    record.captions[name] = sha256Of(caption ?? job.fallbackCaption);
  }
  return record;
}

function preparationOf({ config }: TrainerJob): Record<string, string> {
  const json = trainingConfigJson(config);
  const decisive = PREPARATION_KEYS.filter((name) => json[name] !== TRAINING_CONFIG_KEYS[name]?.default);
  return Object.fromEntries(decisive.map((name) => [name, String(json[name])]));
}

/** The file of a record. */
interface RecordFile extends RunRecord {
  /** SHA-256 of the checkpoints beside it, the newest first. */
  checkpoints: readonly string[];
}

/** What an older version wrote. */
type OlderRecordFile = Pick<RecordFile, 'baseModel' | 'pictures' | 'captions'> & Partial<RecordFile>;

/**
 * Writes a record, atomically.
 *
 * @param file - to write
 * @param record - what the run is made from
 * @param checkpoints - SHA-256 of the checkpoints beside it, the newest first
 */
export async function writeRecord(file: string, record: RunRecord, checkpoints: readonly string[]): Promise<void> {
  const content: RecordFile = { ...record, checkpoints };
  await writeAtomically(file, `${JSON.stringify(withDigest(content), null, 2)}\n`);
}

/**
 * Makes sure that a run may go on from the checkpoints beside a record.
 *
 * @param file - the record
 * @param current - what the run is made from now
 * @returns SHA-256 of the checkpoints, the newest first; null where an older version did not record it
 * @throws CheckpointIncompatibleError naming everything that differs, or that the record can't be read
 */
export async function checkRecord(file: string, current: RunRecord): Promise<readonly string[] | null> {
  const saved = await readRecord(file);
  const faults = [
    ...(saved.baseModel === current.baseModel ? [] : ['another base model']),
    ...differences('other pictures:', saved.pictures, current.pictures),
    ...differences('other captions:', saved.captions, current.captions),
    // An older version did not record it.
    ...(saved.preparation === undefined ? [] : differences('another', saved.preparation, current.preparation)),
  ];
  if (faults.length === 0) return saved.checkpoints ?? null;
  throw new CheckpointIncompatibleError(
    `The checkpoint was made from ${faults.join('; ')}. Undo the change, or start in another output directory.`,
  );
}

async function readRecord(file: string): Promise<OlderRecordFile> {
  const refusal = (fault: string, cause?: unknown): CheckpointIncompatibleError =>
    new CheckpointIncompatibleError(
      `${file}, which says what the checkpoint was made from, ${fault}, or start in another output directory.`,
      { cause },
    );
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    throw refusal(`${fileFault(error)}: put it back`, error);
  });
  const parsed = parseOrNull(text);
  const record = isMapping(parsed) ? withoutDigest(parsed) : null;
  if (isMapping(record) && [record['pictures'], record['captions']].every(isMapping)) return record as never;
  throw refusal(
    'is damaged: it is no record of a run, or not what its digest says. Put back a copy where there is one',
  );
}

function parseOrNull(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

function differences(what: string, saved: Record<string, string>, current: Record<string, string>): string[] {
  const names = [...new Set([...Object.keys(saved), ...Object.keys(current)])].sort();
  const changed = names.filter((name) => saved[name] !== current[name]);
  return changed.length === 0 ? [] : [`${what} ${changed.join(', ')}`];
}

async function readOrNull(file: string): Promise<Buffer | null> {
  return readFile(file).catch(() => null);
}

function sha256Of(content: string | Buffer): string {
  return createHash('sha256').update(content).digest('hex');
}
