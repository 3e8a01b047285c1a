import { createHash, randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, rename, rm, type FileHandle } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { StorageUnavailableError, TooLongError } from '../common/errors.ts';
import type { TransferResult } from '../common/object-store.ts';

/** What is known about a body before it is read. */
export interface BodyLimits {
  /** How the source is called in errors. */
  name: string;
  /** Length that the source announced, or null. */
  announcedBytes: number | null;
  maxBytes: number;
}

/** A body that nobody reads would keep its connection. */
function hangUp(body: AsyncIterable<Uint8Array>): void {
  if (body instanceof Readable) body.destroy();
}

/** So much of a body that is too long is kept: it shows what it would have been. */
const START_BYTES = 64 * 2 ** 10;

function tooLong({ name, announcedBytes, maxBytes }: BodyLimits, chunks: Uint8Array[]): TooLongError {
  const seen = { sizeBytes: announcedBytes, start: Buffer.concat(chunks) };
  return new TooLongError(`${name} is larger than the ${maxBytes} bytes that are allowed.`, seen);
}

/** What a body begins with, as far as it comes. */
async function startOf(body: AsyncIterable<Uint8Array>): Promise<Uint8Array[]> {
  const chunks: Uint8Array[] = [];
  let sizeBytes = 0;
  try {
    for await (const chunk of body) {
      chunks.push(chunk);
      sizeBytes += chunk.byteLength;
      if (sizeBytes >= START_BYTES) break;
    }
  } catch {
    // It is too long, however little of it comes.
  }
  hangUp(body);
  return chunks;
}

/**
 * Reads where the body of an answer begins.
 *
 * @param contentRange - its header `Content-Range`, where it has one
 * @returns the first byte's place in the whole; null where the header does not say
 */
export function rangeStart(contentRange: unknown): number | null {
  const start = /^bytes (\d+)-/.exec(typeof contentRange === 'string' ? contentRange : '')?.[1];
  return start === undefined ? null : Number(start);
}

/**
 * Passes a body on chunk by chunk, under its cap.
 *
 * @throws TooLongError when it is longer than `maxBytes`
 * @throws StorageUnavailableError when it is shorter or longer than announced
 */
export async function* limited(body: AsyncIterable<Uint8Array>, limits: BodyLimits): AsyncGenerator<Uint8Array> {
  if (limits.announcedBytes !== null && limits.announcedBytes > limits.maxBytes) {
    throw tooLong(limits, await startOf(body));
  }
  const start: Uint8Array[] = [];
  let sizeBytes = 0;
  for await (const chunk of body) {
    if (sizeBytes < START_BYTES) start.push(chunk);
    sizeBytes += chunk.byteLength;
    if (sizeBytes > limits.maxBytes) throw tooLong(limits, start);
    yield chunk;
  }
  if (limits.announcedBytes !== null && sizeBytes !== limits.announcedBytes) {
    throw new StorageUnavailableError(
      `${limits.name} came with ${sizeBytes} of ${limits.announcedBytes} bytes: the connection broke off. Try again.`,
    );
  }
}

/**
 * Reads a body into memory, under its cap.
 *
 * @throws TooLongError, StorageUnavailableError as {@link limited}
 */
export async function collect(body: AsyncIterable<Uint8Array>, limits: BodyLimits): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of limited(body, limits)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

/**
 * Writes a body to a file, hashing on the way. The bytes go to a temporary file in the same folder, which is renamed when
 * they are complete: whoever sees `file` sees all of it.
 *
 * @returns size and SHA-256 of what was written
 */
export async function writeBody(
  body: AsyncIterable<Uint8Array>,
  file: string,
  limits: BodyLimits,
): Promise<TransferResult> {
  const temporary = `${file}.${randomUUID()}.part`;
  const hash = createHash('sha256');
  let sizeBytes = 0;
  let handle: FileHandle | null = null;
  try {
    handle = await open(temporary, 'wx');
    for await (const chunk of limited(body, limits)) {
      hash.update(chunk);
      sizeBytes += chunk.byteLength;
      await handle.writeFile(chunk);
    }
    await handle.close();
    await rename(temporary, file);
  } catch (error) {
    hangUp(body);
    await handle?.close();
    await rm(temporary, { force: true });
    throw error;
  }
  return { sizeBytes, sha256: hash.digest('hex') };
}

/**
 * Size and hashes of a file: SHA-256 for our manifests, MD5 for the store to check what it received.
 *
 * @param file - path
 * @param signal - ends the reading
 */
export async function hashFile(file: string, signal?: AbortSignal): Promise<TransferResult & { md5Base64: string }> {
  const sha256 = createHash('sha256');
  const md5 = createHash('md5');
  let sizeBytes = 0;
  for await (const chunk of createReadStream(file) as AsyncIterable<Buffer>) {
    signal?.throwIfAborted();
    sha256.update(chunk);
    md5.update(chunk);
    sizeBytes += chunk.byteLength;
  }
  return { sizeBytes, sha256: sha256.digest('hex'), md5Base64: md5.digest('base64') };
}

/** MD5 in base64: by this the store notices what was damaged on the way. */
export function md5Of(body: string | Uint8Array): string {
  return createHash('md5').update(body).digest('base64');
}
