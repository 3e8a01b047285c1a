import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { ModelLoadFailedError } from '../common/errors.ts';
import { HubClient } from './hub-client.ts';
import type { HubClientOptions } from './hub-client.ts';
import { COMMIT, fetchFile, fetchRange, listFiles } from './hub-files.ts';
import { downloadFiles, downloadModel } from './model-download.ts';
import type { ModelDownloadOptions, RemoteModel } from './model-download.ts';
import { isComplete, writeAtomically } from './model-record.ts';
import { readHeaderOf } from './single-file-model/header.ts';
import { refuseOtherKinds } from './single-file-model/other-kinds.ts';
import { SIDE_FILES } from './single-file-model/side-files.ts';

/** A model on a hub. */
export interface HubModelId {
  /** `org/name`. */
  id: string;
  /** Branch, tag or commit. */
  revision: string;
}

/** What {@link fetchHubModel} needs. */
export interface FetchHubModelOptions extends ModelDownloadOptions, HubClientOptions {
  cacheDirectory: string;
}

/**
 * Reads `org/name` or `org/name@revision`.
 *
 * @param text - a setting
 * @returns the id, or null when it has another form
 */
export function parseHubId(text: string): HubModelId | null {
  const match = /^([\w-][\w.-]*\/[\w-][\w.-]*)(?:@([\w.][\w./-]*))?$/.exec(text);
  const id = match?.[1];
  return id === undefined ? null : { id, revision: match?.[2] ?? 'main' };
}

/**
 * Fetches what training reads of a model on the hub, once: afterwards it is found without network, at the commit that its
 * revision meant at that time.
 *
 * @param model - which one
 * @param options - see {@link FetchHubModelOptions}
 * @returns the directory that holds it
 * @throws ModelLoadFailedError when there is no such model, no access, no network, or it is of another kind
 * @throws ChecksumMismatchError when a file differs from what the hub announced
 */
export async function fetchHubModel(model: HubModelId, options: FetchHubModelOptions): Promise<string> {
  return fetchPinned(model, '', options, ({ remote }, directory) => downloadModel(remote, directory, options));
}

/** A model in a single file on a hub. */
export interface HubFileId extends HubModelId {
  /** Its path in the repository, ending in `.safetensors`. */
  file: string;
}

/**
 * Reads `org/name/file.safetensors` or `org/name/folder/file.safetensors@revision`.
 *
 * @param text - a setting
 * @returns the file, or null when it has another form
 */
export function parseHubFile(text: string): HubFileId | null {
  const match = /^([^/]+\/[^/]+)\/((?:[\w-][\w .-]*\/)*[\w-][\w .-]*\.safetensors)(@[^@]+)?$/i.exec(text);
  const model = parseHubId(`${match?.[1] ?? ''}${match?.[3] ?? ''}`);
  return match?.[2] === undefined || model === null ? null : { ...model, file: match[2] };
}

/**
 * Fetches a single-file model from the hub with what lies beside it, once, as {@link fetchHubModel} does.
 *
 * @param wanted - which one
 * @param options - see {@link FetchHubModelOptions}
 * @returns the directory that the repository's paths lie below
 * @throws ModelLoadFailedError when there is no such file, no access, or no network, or its head shows another kind
 * @throws ChecksumMismatchError when a file differs from what the hub announced
 */
export async function fetchHubFile(wanted: HubFileId, options: FetchHubModelOptions): Promise<string> {
  const folder = path.posix.dirname(wanted.file) === '.' ? '' : `${path.posix.dirname(wanted.file)}/`;
  return fetchPinned(wanted, `--${encodeURIComponent(wanted.file)}`, options, ({ remote, readRange }, target) => {
    const files = [...SIDE_FILES.map((file) => folder + file), wanted.file];
    const sizes = new Map(
      files.flatMap((file) => {
        const sizeBytes = remote.sizes.get(file);
        return sizeBytes === undefined ? [] : [[file, sizeBytes] as const];
      }),
    );
    if (!sizes.has(wanted.file))
      throw new ModelLoadFailedError(`${remote.name} has no ${wanted.file}: check the name.`);
    const check = async () => {
      const read = (start: number, lengthBytes: number) => readRange(wanted.file, start, lengthBytes);
      const sizeBytes = sizes.get(wanted.file) ?? 0;
      refuseOtherKinds(await readHeaderOf({ sizeBytes, read }, remote.name), `${remote.name}/${wanted.file}`);
    };
    return downloadFiles({ ...remote, sizes }, target, { ...options, check });
  });
}

/** A revision on the hub. */
interface PinnedModel {
  remote: RemoteModel;
  /** Reads a piece of a file. */
  readRange: (file: string, start: number, lengthBytes: number) => Promise<Buffer>;
}

/** Finds or fetches a revision, in a directory that is named by its commit and `suffix`. */
async function fetchPinned(
  model: HubModelId & { file?: string },
  suffix: string,
  options: FetchHubModelOptions,
  download: (pinned: PinnedModel, directory: string) => Promise<void>,
): Promise<string> {
  const repository = path.join(options.cacheDirectory, 'models', `hub--${model.id.replace('/', '--')}`);
  const pinFile = path.join(repository, 'revisions', encodeURIComponent(model.revision));
  const isPinned = COMMIT.test(model.revision);
  const pinned = isPinned ? model.revision : await readFile(pinFile, 'utf8').catch(() => null);
  if (pinned !== null && COMMIT.test(pinned)) {
    const directory = path.join(repository, pinned + suffix);
    if (await isComplete(directory)) return directory;
  }
  const client = new HubClient(options);
  try {
    const { commit, files } = await listFiles(client, model);
    const name = `${model.id}@${commit.slice(0, 12)}`;
    const directory = path.join(repository, commit + suffix);
    const urlPathOf = (file: string) =>
      `/${model.id}/resolve/${commit}/${file.split('/').map(encodeURIComponent).join('/')}`;
    const remote: RemoteModel = {
      name,
      sizes: new Map([...files].map(([file, { sizeBytes }]) => [file, sizeBytes])),
      fetch: async (relativePath, file, onBytes) => {
        const wanted = files.get(relativePath);
        if (wanted === undefined) throw new ModelLoadFailedError(`${name} has no ${relativePath}.`);
        return fetchFile(client, {
          urlPath: urlPathOf(relativePath),
          name: `${relativePath} of ${name}`,
          file,
          wanted,
          onBytes,
        });
      },
    };
    const readRange = (file: string, start: number, lengthBytes: number) =>
      fetchRange(client, { urlPath: urlPathOf(file), name: `${file} of ${name}` }, start, lengthBytes);
    if (!isPinned) warnOfBranch(model, commit, options);
    await download({ remote, readRange }, directory);
    await writeAtomically(pinFile, commit);
    return directory;
  } finally {
    await client.close();
  }
}

/** Each machine takes what a branch means when it first looks, and a job moves between machines. */
function warnOfBranch(model: HubModelId & { file?: string }, commit: string, { logger }: FetchHubModelOptions): void {
  const { id, revision, file } = model;
  logger.warn(
    { baseModel: id, revision, pinned: `${file === undefined ? id : `${id}/${file}`}@${commit}` },
    'the base model is named by a branch or tag, which may mean another commit on the next machine, and then jobs that move there end in CHECKPOINT_INCOMPATIBLE: name it as in "pinned" (BASE_MODEL)',
  );
}
