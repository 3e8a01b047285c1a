import type { Dispatcher } from 'undici';
import { ChecksumMismatchError, ModelLoadFailedError } from '../common/errors.ts';
import type { HubClient } from './hub-client.ts';
import { fetchWhole } from './part-file.ts';
import type { AnnouncedDigest } from './part-file.ts';
import { PassingFault } from './persevere.ts';
import { rangeStart } from './write-stream.ts';

/** A file of a model as the hub describes it. */
export interface HubFile {
  sizeBytes: number;
  announced: AnnouncedDigest;
}

/** A revision, pinned. */
export interface HubListing {
  commit: string;
  files: Map<string, HubFile>;
}

/** Names a commit. */
export const COMMIT = /^[0-9a-f]{40}$/;
const SHA256 = /^[0-9a-f]{64}$/;

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
    return [rfilename, { sizeBytes: lfs.size, announced: { algorithm: 'sha256', digest: lfs.sha256 } }];
  }
  if (typeof blobId === 'string' && COMMIT.test(blobId) && typeof size === 'number') {
    return [rfilename, { sizeBytes: size, announced: { algorithm: 'git-sha1', digest: blobId } }];
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
 * Fetches a file, see `fetchWhole`.
 *
 * @returns its SHA-256, lower-case hex
 * @throws ChecksumMismatchError when its hash is wrong again and again
 */
export async function fetchFile(
  client: HubClient,
  { urlPath, name, file, wanted, onBytes }: FileFetch,
): Promise<string> {
  const { digest, algorithm } = wanted.announced;
  return fetchWhole(
    { ...wanted, file, onBytes },
    async (part) => {
      let startBytes = 0;
      const askForRest = async (): Promise<Record<string, string>> => {
        startBytes = await part.startBytes();
        return startBytes === 0 ? {} : { range: `bytes=${startBytes}-` };
      };
      const append = async ({ statusCode, headers, body }: Dispatcher.ResponseData, onAdvance: () => void) => {
        // A server that knows no ranges sends everything once more.
        const isRest = statusCode === 206 && rangeStart(headers['content-range']) === startBytes;
        await part.write(body, isRest ? startBytes : 0, onAdvance);
      };
      await client.read(urlPath, name, append, askForRest);
    },
    (found) =>
      new ChecksumMismatchError(
        `${name} came with the hash ${found}, but the hub announced ${digest} (${algorithm}): try again later, or check HF_ENDPOINT and what lies between.`,
      ),
  );
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
