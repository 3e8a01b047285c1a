import { createHash, randomUUID } from 'node:crypto';
import { mkdir, open, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { ModelLoadFailedError } from '../../common/errors.ts';
import { checkFreeSpace } from '../model-download.ts';
import type { ModelDownloadOptions } from '../model-download.ts';
import { hashModelFiles } from '../model-fingerprint.ts';
import { withFileLock } from '../model-lock.ts';
import { isComplete, writeRecord } from '../model-record.ts';
import type { RecordedFile } from '../model-record.ts';
import { CLIP_VOCABULARY_SIZE, clipTokenizerFiles } from './clip-vocabulary.ts';
import { readHeader } from './header.ts';
import { planConversion } from './plan.ts';
import type { ConversionPlan } from './plan.ts';
import { readSideFiles } from './side-files.ts';
import type { SideFiles } from './side-files.ts';
import { layOut, writeWeights } from './write-weights.ts';
import type { WeightFile } from './write-weights.ts';

/** What {@link convertSingleFile} needs. */
export interface ConvertOptions extends ModelDownloadOptions {
  cacheDirectory: string;
  /** The directory that the file was fetched into; its hash is kept with that. Absent: it lies elsewhere. */
  fetchedInto?: string;
}

/** All files of a directory in diffusers layout. */
interface Layout {
  /** Contents of the small ones, by path. */
  descriptions: ReadonlyMap<string, Buffer>;
  weights: ReadonlyMap<string, WeightFile>;
}

/**
 * Makes a directory in diffusers layout of an original single-file checkpoint, in the cache and once: afterwards the same
 * bytes, wherever they lie, are found there. Weights keep their type; they get other names and nothing else.
 *
 * @param file - a `.safetensors` file with the names that CompVis gave
 * @param name - how the model is called in errors and in the log
 * @param options - see {@link ConvertOptions}
 * @returns the directory
 * @throws ModelLoadFailedError when it is no whole Stable Diffusion 1.x, or the disk too full
 */
export async function convertSingleFile(file: string, name: string, options: ConvertOptions): Promise<string> {
  const { cacheDirectory, fetchedInto, logger, signal } = options;
  const before = await stateOf(file);
  const side = await readSideFiles(file);
  const plan = planConversion(await readHeader(file, name), side, name);
  const layout: Layout = {
    descriptions: await describe(plan, side, name),
    weights: new Map([...plan.weights].map(([target, tensors]) => [target, layOut(tensors)])),
  };
  const [root, relativePath] = fetchedInto === undefined ? [file, ''] : [fetchedInto, path.relative(fetchedInto, file)];
  const sha256 = (await hashModelFiles(root, [relativePath], cacheDirectory, signal)).get(relativePath) ?? '';
  const models = path.join(cacheDirectory, 'models');
  const directory = path.join(models, `single-file--${sha256}--${digestOf(layout.descriptions)}`);
  await mkdir(models, { recursive: true });
  const onWait = () => logger.info({ baseModel: name }, 'another process is converting the base model');
  await withFileLock(`${directory}.lock`, { signal, onWait }, async () => {
    if (await isComplete(directory)) return;
    await removeRemains(directory);
    report(plan, name, options);
    const part = `${directory}.${randomUUID()}.part`;
    try {
      await writeLayout(file, layout, part, { ...options, name });
      if ((await stateOf(file)) !== before) {
        throw new ModelLoadFailedError(`The base model ${name} changed while it was read: start again.`);
      }
      await rename(part, directory);
    } finally {
      await rm(part, { recursive: true, force: true });
    }
    logger.info({ baseModel: name, directory }, 'base model converted');
  });
  return directory;
}

/** What changes whenever somebody writes to a file. */
async function stateOf(file: string): Promise<string> {
  const { size, mtimeNs, ctimeNs } = await stat(file, { bigint: true });
  return `${size} ${mtimeNs} ${ctimeNs}`;
}

async function describe(plan: ConversionPlan, side: SideFiles, name: string): Promise<Map<string, Buffer>> {
  const json = (value: object) => Buffer.from(`${JSON.stringify(value, null, 2)}\n`);
  const configs = [...plan.configs].map(([file, value]): [string, Buffer] => [file, json(value)]);
  if (side.tokenizer.size > 0) return new Map([...configs, ...side.tokenizer]);
  if (plan.vocabularySize !== CLIP_VOCABULARY_SIZE) {
    throw new ModelLoadFailedError(
      `The text encoder of the base model ${name} knows ${plan.vocabularySize} tokens, CLIP's tokenizer ${CLIP_VOCABULARY_SIZE}: put the model's tokenizer/vocab.json and tokenizer/merges.txt beside the file.`,
    );
  }
  return new Map([...configs, ...(await clipTokenizerFiles())]);
}

/** What lies beside the file, and what this version writes by itself, makes another directory of the same file. */
function digestOf(descriptions: ReadonlyMap<string, Buffer>): string {
  const digest = createHash('sha256');
  for (const [file, content] of [...descriptions].sort(([a], [b]) => (a < b ? -1 : 1))) {
    digest.update(`${file}\0${content.length}\0`).update(content);
  }
  return digest.digest('hex').slice(0, 16);
}

/** Of processes that were killed, and of a directory that lost files. */
async function removeRemains(directory: string): Promise<void> {
  const folder = path.dirname(directory);
  const isRemain = (entry: string) => entry.startsWith(`${path.basename(directory)}.`) && entry.endsWith('.part');
  const remains = (await readdir(folder)).filter(isRemain).map((entry) => path.join(folder, entry));
  for (const remain of [directory, ...remains]) await rm(remain, { recursive: true, force: true });
}

function report({ isGuessed, leftOut }: ConversionPlan, name: string, { logger }: ConvertOptions): void {
  if (isGuessed) {
    logger.warn(
      { baseModel: name },
      'the base model has other sizes than Stable Diffusion 1.x: its numbers of heads and groups, which weights do not show, are taken to be the same; if they are not, put its config.json files beside it',
    );
  }
  if (leftOut.length > 0) {
    const some = leftOut.slice(0, 10);
    logger.info({ baseModel: name, count: leftOut.length, some }, 'left out tensors that are not part of the model');
  }
}

async function writeLayout(
  file: string,
  { descriptions, weights }: Layout,
  directory: string,
  options: ConvertOptions & { name: string },
): Promise<void> {
  const { logger, signal, name, onProgress } = options;
  const totalBytes = [...weights.values()].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  await checkFreeSpace(path.dirname(directory), name, totalBytes);
  logger.info({ baseModel: name, totalBytes }, 'converting the base model to diffusers layout');
  const files = new Map<string, RecordedFile>();
  for (const [target, content] of descriptions) {
    await mkdir(path.dirname(path.join(directory, target)), { recursive: true });
    await writeFile(path.join(directory, target), content);
    files.set(target, { sizeBytes: content.length, sha256: null });
  }
  let doneBytes = 0;
  const onBytes = (lengthBytes: number) => {
    doneBytes += lengthBytes;
    onProgress?.({ activity: 'converting', doneBytes, totalBytes });
  };
  const source = await open(file, 'r');
  try {
    for (const [target, layout] of weights) {
      onBytes(layout.head.length);
      await writeWeights(source, layout, path.join(directory, target), { signal, onBytes });
      files.set(target, { sizeBytes: layout.sizeBytes, sha256: null });
    }
  } finally {
    await source.close();
  }
  // Hashes are added when the fingerprint is computed: the same reading.
  await writeRecord(directory, files);
}
