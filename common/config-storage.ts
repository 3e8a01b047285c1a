import path from 'node:path';
import type { Sources } from './config-sections.ts';
import type { Environment } from './config-source.ts';
import type { BaseModelConfig, StorageConfig, StoreConfig } from './config-types.ts';
import { originOf } from './webhook-origin.ts';

const IN_BUCKET = /^(s3|gs):\/\//;

/**
 * `AWS_*`, section `storage`, and the base model of a command.
 *
 * @param sources - see {@link Sources}
 * @param model - what the command line names as base model, null: `BASE_MODEL` counts; undefined: none is needed
 * @returns `storage` for the roles `control` and `pod`, `baseModel` where one is needed and named
 */
export function readStorage(
  { root, env, roles, faults }: Sources,
  model: string | null | undefined,
): { storage: StorageConfig | null; baseModel: BaseModelConfig | null } {
  const section = root.section('storage');
  const checksums = section.choice('checksums', ['when-required', 'when-supported']);
  const keepCheckpoints = section.integer('keepCheckpoints', 1, 100);
  const keepFinalCheckpoints = section.integer('keepFinalCheckpoints', 0, 100);
  const rootInFile = section.textOrNone('fileUriRoot');
  section.finish();
  const readStore = (bucket: string): StoreConfig => {
    return { ...readConnection(env, faults, bucket), checksums, fileUriRoot: null };
  };
  const baseModel = model === undefined ? null : readBaseModel(model ?? env.text('BASE_MODEL'), readStore);
  if (!roles.has('control') && !roles.has('pod')) return { storage: null, baseModel };
  const bucket = env.required(
    ['S3_BUCKET', 'AWS_STORAGE_BUCKET_NAME'],
    'set it to the bucket that gets checkpoints and weights',
  );
  const fileUriRoot = readFileUriRoot(env, rootInFile, faults);
  const storage = { ...readStore('the bucket'), fileUriRoot, bucket, keepCheckpoints, keepFinalCheckpoints };
  return { storage, baseModel };
}

function readBaseModel(source: string | null, readStore: (bucket: string) => StoreConfig): BaseModelConfig | null {
  if (source === null) return null;
  return { source, store: IN_BUCKET.test(source) ? readStore(`the bucket of the base model ${source}`) : null };
}

function readConnection(
  env: Environment,
  faults: string[],
  bucket: string,
): Omit<StoreConfig, 'checksums' | 'fileUriRoot'> {
  const endpoint = env.text('AWS_ENDPOINT_URL_S3', 'AWS_ENDPOINT_URL');
  if (endpoint !== null && originOf(endpoint) === null) {
    faults.push(`AWS_ENDPOINT_URL is ${JSON.stringify(endpoint)}: set it to an http(s) URL, or unset it for AWS S3.`);
  }
  return {
    endpoint,
    region: env.text('AWS_S3_REGION_NAME', 'AWS_REGION', 'AWS_DEFAULT_REGION') ?? 'us-east-1',
    accessKeyId: env.required(['AWS_ACCESS_KEY_ID'], `set it to the access key of ${bucket}`),
    secretAccessKey: env.required(
      ['AWS_SECRET_ACCESS_KEY'],
      'set it to the secret key that belongs to AWS_ACCESS_KEY_ID',
    ),
    sessionToken: env.text('AWS_SESSION_TOKEN'),
  };
}

function readFileUriRoot(env: Environment, rootInFile: string | null, faults: string[]): string | null {
  const fileUriRoot = env.text('FILE_URI_ROOT') ?? rootInFile;
  if (fileUriRoot !== null && !path.isAbsolute(fileUriRoot)) {
    faults.push(
      `The root of file:// images must be an absolute path, but is ${JSON.stringify(fileUriRoot)}: set FILE_URI_ROOT or storage.fileUriRoot.`,
    );
  }
  return fileUriRoot;
}
