import type { BaseModel } from '../activities/dependencies.ts';
import type { BaseModelConfig, Config } from '../common/config.ts';
import { configSecrets, createLogger } from '../common/logger.ts';
import { resolveBaseModel } from '../worker/base-model.ts';
import { createObjectStore } from '../worker/object-store.ts';
import { UsageError } from './command.ts';
import { downloadDisplay } from './progress.ts';

/** Explains `--model` in the help of a command, below a column of so many characters. */
export const modelHelp = (column: number): string =>
  [
    'base model: a directory in diffusers layout, a .safetensors file with a whole Stable Diffusion 1.x, a hub',
    'id (org/name, org/name@revision, org/name/file.safetensors), or s3://bucket/... of such a directory or',
    'file, with the AWS_ variables of .env.example; default: what the variable BASE_MODEL names',
  ].join(`\n${' '.repeat(column)}`);

/**
 * The base model that a command line names, or else the environment.
 *
 * @param service - loaded with the command line's `model`
 * @throws UsageError when neither names one
 */
export function requireBaseModel({ baseModel }: Config): BaseModelConfig {
  if (baseModel === null) throw new UsageError('--model is missing, and BASE_MODEL is not set.');
  return baseModel;
}

/**
 * Finds a command's base model, fetches it where need be and shows how far that is.
 *
 * @param service - loaded with the command line's `model`
 * @param signal - ends it
 * @throws as `resolveBaseModel`
 */
export async function fetchBaseModel(service: Config, signal: AbortSignal): Promise<BaseModel> {
  const { source, store: storeConfig } = requireBaseModel(service);
  const store = storeConfig === null ? null : createObjectStore(storeConfig);
  try {
    return await resolveBaseModel(source, {
      ...service.trainer,
      ...(store === null ? {} : { store }),
      logger: createLogger({ level: 'warn', secrets: configSecrets(service) }),
      signal,
      onProgress: downloadDisplay(process.stdout),
    });
  } finally {
    store?.close();
  }
}
