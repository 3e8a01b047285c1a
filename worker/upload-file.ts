import { open } from 'node:fs/promises';
import type { ReadStream } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { StorageUnavailableError } from '../common/errors.ts';
import type { TransferResult } from '../common/object-store.ts';
import { hashFile } from './write-stream.ts';

const FIRST_PAUSE_MS = 400;

/** What a file is sent with. */
export interface Upload {
  body: ReadStream;
  sizeBytes: number;
  md5Base64: string;
}

/** How {@link uploadFile} sends. */
export interface UploadOptions {
  /** Sends the file once. */
  send: (upload: Upload) => Promise<unknown>;
  /** Tries in all, where the store can't be reached. */
  attempts: number;
  signal: AbortSignal | undefined;
}

/**
 * Uploads a file. The client can't rewind a stream and tries no upload again by itself: each try here reads the file from its
 * start.
 *
 * @param file - path
 * @returns size and SHA-256 of what was read before the first try
 * @throws what `send` throws, and the disk's own errors
 */
export async function uploadFile(file: string, { send, attempts, signal }: UploadOptions): Promise<TransferResult> {
  const { sizeBytes, sha256, md5Base64 } = await hashFile(file);
  for (let attempt = 1; ; attempt++) {
    // Opened here and not by the stream, which would tell of a file that is gone when nobody listens yet.
    const body = (await open(file)).createReadStream();
    const unreadable = new Promise<never>((_, reject) => body.on('error', reject));
    try {
      await Promise.race([send({ body, sizeBytes, md5Base64 }), unreadable]);
      return { sizeBytes, sha256 };
    } catch (error) {
      if (!(error instanceof StorageUnavailableError) || attempt === attempts) throw error;
      await sleep(FIRST_PAUSE_MS * 2 ** (attempt - 1), undefined, { ...(signal && { signal }) });
    } finally {
      body.destroy();
    }
  }
}
