import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, rename, rm, stat } from 'node:fs/promises';
import type { Dispatcher } from 'undici';
import { ChecksumMismatchError, ModelLoadFailedError } from '../common/errors.ts';
import { PassingFault } from './hub-client.ts';
import type { HubClient } from './hub-client.ts';

/** A file of a model as the hub describes it. */
export interface HubFile {
  sizeBytes: number;
  algorithm: 'sha256' | 'git-sha1';
  /** Lower-case hex. */
  digest: string;
}

/** A revision, pinned. */
export interface HubListing {
  commit: string;
  files: Map<string, HubFile>;
}

/** Names a commit. */
export const COMMIT = /^[0-9a-f]{40}$/;
const SHA256 = /^[0-9a-f]{64}$/;

/** Downloads of a whole file that end in another hash. */
const MAX_MISMATCHES = 2;

/**
 * Asks what a revision holds.
 *
 * @throws ModelLoadFailedError when what answers is no hub
 */
export async function listFiles(
  client: HubClient,
  { id, revision }: { id: string; revision: string },
): Promise<HubListing> {
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
export interface FileFetch {
  urlPath: string;
  name: string;
  file: string;
  wanted: HubFile;
  onBytes: (sizeBytes: number) => void;
}

/**
 * Fetches a file piece by piece into `<file>.part`, which is renamed once its hash is right.
 *
 * @throws ChecksumMismatchError when it is wrong again and again
 */
export async function fetchFile(client: HubClient, fetch: FileFetch): Promise<void> {
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
export async function fetchRange(
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
