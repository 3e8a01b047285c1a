import { createReadStream } from 'node:fs';
import { realpath, stat } from 'node:fs/promises';
import path from 'node:path';
import { BlockedTargetError } from '../common/errors.ts';
import type { StoreReadOptions, TransferResult } from '../common/object-store.ts';
import { writeBody } from './write-stream.ts';

/**
 * Copies an image that lies on this machine.
 *
 * @param source - file to read
 * @param root - directory below which it must really lie, links resolved; null: nothing is allowed
 * @param file - file to write
 * @returns size and hash; null when there is no such file
 * @throws BlockedTargetError when it lies elsewhere
 */
export async function copyLocalImage(
  source: string,
  root: string | null,
  file: string,
  options: StoreReadOptions,
): Promise<TransferResult | null> {
  if (root === null) throw new BlockedTargetError(`"${source}" is a local file: set FILE_URI_ROOT to allow some.`);
  const [realRoot, real] = await Promise.all([realpathOrNull(root), realpathOrNull(source)]);
  if (real === null) return null;
  // A link inside the allowed directory may point out of it.
  if (realRoot === null || !real.startsWith(realRoot + path.sep)) {
    throw new BlockedTargetError(`"${source}" leads out of the directory that FILE_URI_ROOT allows.`);
  }
  const status = await stat(real);
  if (!status.isFile()) throw new BlockedTargetError(`"${source}" is not a regular file.`);
  const body = createReadStream(real, options.signal === undefined ? {} : { signal: options.signal });
  return writeBody(body, file, { name: `"${source}"`, announcedBytes: status.size, maxBytes: options.maxBytes });
}

async function realpathOrNull(file: string): Promise<string | null> {
  try {
    return await realpath(file);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    throw error;
  }
}
