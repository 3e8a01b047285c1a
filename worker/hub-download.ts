import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, readFile, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import type { Dispatcher } from 'undici';
import { ChecksumMismatchError, ModelLoadFailedError } from '../common/errors.ts';
import { HubClient, PassingFault } from './hub-client.ts';
import type { HubClientOptions } from './hub-client.ts';
import { downloadFiles, downloadModel, isComplete, writeAtomically } from './model-download.ts';
import type { ModelDownloadOptions, RemoteModel } from './model-download.ts';
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

/** A file of a model as the hub describes it. */
interface HubFile {
  sizeBytes: number;
  algorithm: 'sha256' | 'git-sha1';
  /** Lower-case hex. */
  digest: string;
}

/** A revision, pinned. */
interface HubListing {
  commit: string;
  files: Map<string, HubFile>;
}

const COMMIT = /^[0-9a-f]{40}$/;
const SHA256 = /^[0-9a-f]{64}$/;

/** Downloads of a whole file that end in another hash. */
const MAX_MISMATCHES = 2;

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
 * @returns path of the file
 * @throws ModelLoadFailedError when there is no such file, no access, or no network, or its head shows another kind
 * @throws ChecksumMismatchError when a file differs from what the hub announced
 */
export async function fetchHubFile(wanted: HubFileId, options: FetchHubModelOptions): Promise<string> {
  const folder = path.posix.dirname(wanted.file) === '.' ? '' : `${path.posix.dirname(wanted.file)}/`;
  const directory = await fetchPinned(
    wanted,
    `--${encodeURIComponent(wanted.file)}`,
    options,
    ({ remote, readRange }, target) => {
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
    },
  );
  return path.join(directory, wanted.file);
}

/** A revision on the hub. */
interface PinnedModel {
  remote: RemoteModel;
  /** Reads a piece of a file. */
  readRange: (file: string, start: number, lengthBytes: number) => Promise<Buffer>;
}

/** Finds or fetches a revision, in a directory that is named by its commit and `suffix`. */
async function fetchPinned(
  model: HubModelId,
  suffix: string,
  options: FetchHubModelOptions,
  download: (pinned: PinnedModel, directory: string) => Promise<void>,
): Promise<string> {
  const repository = path.join(options.cacheDirectory, 'models', `hub--${model.id.replace('/', '--')}`);
  const pinFile = path.join(repository, 'revisions', encodeURIComponent(model.revision));
  const pinned = await readFile(pinFile, 'utf8').catch(() => null);
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
        await fetchFile(client, {
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
    await download({ remote, readRange }, directory);
    await writeAtomically(pinFile, commit);
    return directory;
  } finally {
    await client.close();
  }
}

async function listFiles(client: HubClient, { id, revision }: HubModelId): Promise<HubListing> {
  const urlPath = `/api/models/${id}/revision/${encodeURIComponent(revision)}?blobs=true`;
  const name = `${id}@${revision}`;
  const listing = await client.read(urlPath, name, async ({ body }) => body.json().catch(rethrowUnlessSyntax));
  const { sha, siblings } = (listing ?? {}) as { sha?: unknown; siblings?: unknown };
  if (typeof sha !== 'string' || !COMMIT.test(sha) || !Array.isArray(siblings)) {
    throw new ModelLoadFailedError(`What answered for ${name} is no model hub: check HF_ENDPOINT.`);
  }
  const files = new Map<string, HubFile>();
  for (const sibling of siblings) {
    const entry = readSibling(sibling);
    if (entry !== null) files.set(...entry);
  }
  return { commit: sha, files };
}

/** JSON that is none is no fault of the network: the caller sees null. */
function rethrowUnlessSyntax(error: unknown): null {
  if (error instanceof SyntaxError) return null;
  throw error;
}

/** Large files carry their SHA-256, the others git's own hash. */
function readSibling(sibling: unknown): [string, HubFile] | null {
  const { rfilename, size, blobId, lfs } = sibling as {
    rfilename?: unknown;
    size?: unknown;
    blobId?: unknown;
    lfs?: { sha256?: unknown; size?: unknown };
  };
  if (typeof rfilename !== 'string') return null;
  if (typeof lfs?.sha256 === 'string' && SHA256.test(lfs.sha256) && typeof lfs.size === 'number') {
    return [rfilename, { sizeBytes: lfs.size, algorithm: 'sha256', digest: lfs.sha256 }];
  }
  if (typeof blobId === 'string' && COMMIT.test(blobId) && typeof size === 'number') {
    return [rfilename, { sizeBytes: size, algorithm: 'git-sha1', digest: blobId }];
  }
  return null;
}

/** One file and where it goes. */
interface FileFetch {
  urlPath: string;
  name: string;
  file: string;
  wanted: HubFile;
  onBytes: (sizeBytes: number) => void;
}

/** Fetches a file piece by piece into `<file>.part`, which is renamed once its hash is right. */
async function fetchFile(client: HubClient, fetch: FileFetch): Promise<void> {
  const { name, file, wanted } = fetch;
  const part = `${file}.part`;
  for (let mismatches = 1; ; mismatches++) {
    if ((await sizeOf(part)) !== wanted.sizeBytes) await fetchRest(client, part, fetch);
    const found = await digestOf(part, wanted);
    if (found === wanted.digest) {
      await rename(part, file);
      return;
    }
    await rm(part);
    if (mismatches === MAX_MISMATCHES) {
      throw new ChecksumMismatchError(
        `${name} came with the hash ${found}, but the hub announced ${wanted.digest} (${wanted.algorithm}): try again later, or check HF_ENDPOINT and what lies between.`,
      );
    }
  }
}

async function fetchRest(
  client: HubClient,
  part: string,
  { urlPath, name, wanted, onBytes }: FileFetch,
): Promise<void> {
  let startBytes = 0;
  let furthestBytes = 0;
  const askForRest = async (): Promise<Record<string, string>> => {
    startBytes = (await sizeOf(part)) ?? 0;
    if (startBytes > wanted.sizeBytes) startBytes = 0;
    furthestBytes = Math.max(furthestBytes, startBytes);
    return startBytes === 0 ? {} : { range: `bytes=${startBytes}-` };
  };
  const append = async ({ statusCode, headers, body }: Dispatcher.ResponseData, onAdvance: () => void) => {
    const rangeStart = /^bytes (\d+)-/.exec(String(headers['content-range'] ?? ''))?.[1];
    // A server that knows no ranges sends everything once more.
    const isRest = statusCode === 206 && Number(rangeStart) === startBytes;
    let sizeBytes = isRest ? startBytes : 0;
    const handle = await open(part, isRest ? 'a' : 'w');
    try {
      for await (const chunk of body as AsyncIterable<Buffer>) {
        sizeBytes += chunk.byteLength;
        if (sizeBytes > wanted.sizeBytes) break;
        await handle.writeFile(chunk);
        onBytes(sizeBytes);
        if (sizeBytes <= furthestBytes) continue;
        furthestBytes = sizeBytes;
        onAdvance();
      }
    } finally {
      await handle.close();
    }
    if (sizeBytes === wanted.sizeBytes) return;
    if (sizeBytes > wanted.sizeBytes) await rm(part);
    throw new PassingFault(`${sizeBytes} bytes arrived instead of ${wanted.sizeBytes}`);
  };
  await client.read(urlPath, name, append, askForRest);
}

/** Reads a piece of a file; of a server that knows no ranges, what comes before is read as well. */
async function fetchRange(
  client: HubClient,
  { urlPath, name }: { urlPath: string; name: string },
  start: number,
  lengthBytes: number,
): Promise<Buffer> {
  const take = async ({ statusCode, body }: Dispatcher.ResponseData) => {
    const before = statusCode === 206 ? 0 : start;
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    for await (const chunk of body as AsyncIterable<Buffer>) {
      chunks.push(chunk);
      sizeBytes += chunk.byteLength;
      if (sizeBytes >= before + lengthBytes) break;
    }
    const piece = Buffer.concat(chunks).subarray(before, before + lengthBytes);
    if (piece.length < lengthBytes) throw new PassingFault(`${piece.length} bytes arrived instead of ${lengthBytes}`);
    return piece;
  };
  return client.read(urlPath, name, take, async () => ({ range: `bytes=${start}-${start + lengthBytes - 1}` }));
}

async function sizeOf(file: string): Promise<number | null> {
  return stat(file).then(
    ({ size }) => size,
    () => null,
  );
}

async function digestOf(file: string, { algorithm, sizeBytes }: HubFile): Promise<string> {
  const hash = createHash(algorithm === 'sha256' ? 'sha256' : 'sha1');
  // Git hashes a header along: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects#_object_storage
  if (algorithm === 'git-sha1') hash.update(`blob ${sizeBytes}\0`);
  for await (const chunk of createReadStream(file) as AsyncIterable<Buffer>) hash.update(chunk);
  return hash.digest('hex');
}
