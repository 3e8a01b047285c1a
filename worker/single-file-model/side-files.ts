import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { ModelLoadFailedError } from '../../common/errors.ts';

/** Configurations that count where they lie beside a single file, in diffusers layout. */
const CONFIG_FILES = [
  'unet/config.json',
  'vae/config.json',
  'text_encoder/config.json',
  'scheduler/scheduler_config.json',
] as const;

const TOKENIZER_FILES = [
  'tokenizer/vocab.json',
  'tokenizer/merges.txt',
  'tokenizer/tokenizer.json',
  'tokenizer/special_tokens_map.json',
  'tokenizer/tokenizer_config.json',
] as const;

/** Files that count where they lie beside a single file, by their path from its folder. */
export const SIDE_FILES: readonly string[] = [...CONFIG_FILES, ...TOKENIZER_FILES];

/** Path of a configuration. */
export type ConfigFile = (typeof CONFIG_FILES)[number];

/** What lies beside a single file: what a file of weights can't say. */
export interface SideFiles {
  configs: ReadonlyMap<ConfigFile, Record<string, unknown>>;
  /** Contents by path; empty where there is no whole tokenizer. */
  tokenizer: ReadonlyMap<string, Buffer>;
}

/**
 * Reads what lies beside a single file.
 *
 * @param file - path of the single file
 * @throws ModelLoadFailedError when a configuration is no JSON object
 */
export async function readSideFiles(file: string): Promise<SideFiles> {
  const folder = path.dirname(file);
  const configs = new Map<ConfigFile, Record<string, unknown>>();
  for (const name of CONFIG_FILES) {
    const bytes = await readOrNull(path.join(folder, name));
    if (bytes !== null) configs.set(name, parseConfig(bytes, path.join(folder, name)));
  }
  const tokenizer = new Map<string, Buffer>();
  for (const name of TOKENIZER_FILES) {
    const bytes = await readOrNull(path.join(folder, name));
    if (bytes !== null) tokenizer.set(name, bytes);
  }
  const has = (...names: string[]) => names.every((name) => tokenizer.has(name));
  const isWhole = has('tokenizer/vocab.json', 'tokenizer/merges.txt') || has('tokenizer/tokenizer.json');
  return { configs, tokenizer: isWhole ? tokenizer : new Map() };
}

function parseConfig(bytes: Buffer, file: string): Record<string, unknown> {
  let value: unknown = null;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch (error) {
    throw new ModelLoadFailedError(`${file} is not valid JSON: fetch it again, or take it away.`, { cause: error });
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new ModelLoadFailedError(`${file} is not a JSON object: fetch it again, or take it away.`);
}

async function readOrNull(file: string): Promise<Buffer | null> {
  try {
    return await readFile(file);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : null;
    if (code === 'ENOENT' || code === 'ENOTDIR') return null;
    throw error;
  }
}
