import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open, rename, rm, stat } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { PassingFault } from './persevere.ts';

/** Downloads of a whole file that end in another hash. */
const MAX_MISMATCHES = 2;

/** What a source says of a file's content. */
export interface AnnouncedDigest {
  algorithm: 'sha256' | 'git-sha1';
  /** Lower-case hex. */
  digest: string;
}

/** A file that is wanted whole. */
export interface WantedFile {
  /** Where it goes; its folder exists. */
  file: string;
  sizeBytes: number;
  /** Null: the source says nothing, and the length must do. */
  announced: AnnouncedDigest | null;
  /** Called with the length that has arrived so far. */
  onBytes: (sizeBytes: number) => void;
}

/** Where a file grows until it is whole. It outlives the process, so that another can go on with it. */
export class PartFile {
  /** Its path. */
  readonly file: string;
  readonly #wanted: WantedFile;
  #furthestBytes = 0;

  constructor(wanted: WantedFile) {
    this.file = partOf(wanted.file);
    this.#wanted = wanted;
  }

  /** The byte from which the next try has to go on. */
  async startBytes(): Promise<number> {
    const sizeBytes = (await sizeOf(this.file)) ?? 0;
    const startBytes = sizeBytes > this.#wanted.sizeBytes ? 0 : sizeBytes;
    this.#furthestBytes = Math.max(this.#furthestBytes, startBytes);
    return startBytes;
  }

  /**
   * Writes the rest of the file.
   *
   * @param body - all bytes from `startBytes` on
   * @param startBytes - 0, or what {@link startBytes} said: 0 begins anew
   * @param onAdvance - called for each piece that no try before has brought
   * @throws PassingFault when the file is not as long afterwards as it has to be
   */
  async write(body: AsyncIterable<Uint8Array>, startBytes: number, onAdvance: () => void): Promise<void> {
    const { sizeBytes: wantedBytes } = this.#wanted;
    const handle = await open(this.file, startBytes === 0 ? 'w' : 'a');
    let sizeBytes: number;
    try {
      sizeBytes = await this.#append(handle, body, startBytes, onAdvance);
      // It is renamed next: no crash may leave the name with less than the bytes.
      if (sizeBytes === wantedBytes) await handle.sync();
    } finally {
      await handle.close();
    }
    if (sizeBytes === wantedBytes) return;
    if (sizeBytes > wantedBytes) await rm(this.file);
    throw new PassingFault(`${sizeBytes} bytes arrived instead of ${wantedBytes}`);
  }

  /** Returns the length that the file has then, or would have. */
  async #append(
    handle: FileHandle,
    body: AsyncIterable<Uint8Array>,
    startBytes: number,
    onAdvance: () => void,
  ): Promise<number> {
    const { sizeBytes: wantedBytes, announced, onBytes } = this.#wanted;
    let sizeBytes = startBytes;
    try {
      for await (const chunk of body) {
        if (sizeBytes + chunk.byteLength > wantedBytes) return sizeBytes + chunk.byteLength;
        await handle.writeFile(chunk);
        sizeBytes += chunk.byteLength;
        onBytes(sizeBytes);
        if (sizeBytes <= this.#furthestBytes) continue;
        this.#furthestBytes = sizeBytes;
        onAdvance();
      }
    } catch (error) {
      if (sizeBytes < wantedBytes) throw error;
      // Nothing is left to be asked for. The hash decides; where there is none, a check of the client's own may have failed.
      if (announced === null) {
        await rm(this.file);
        throw error;
      }
    }
    return sizeBytes;
  }
}

/**
 * Fetches a file piece by piece into its {@link PartFile}, which is renamed once its hash is right.
 *
 * @param wanted - which file
 * @param fetchRest - fetches what is missing, however many tries that takes
 * @param mismatch - makes the error for a file whose hash is `found` again and again
 * @returns its SHA-256, lower-case hex
 */
export async function fetchWhole(
  wanted: WantedFile,
  fetchRest: (part: PartFile) => Promise<void>,
  mismatch: (found: string) => Error,
): Promise<string> {
  const part = new PartFile(wanted);
  const { announced } = wanted;
  for (let mismatches = 1; ; mismatches++) {
    if ((await sizeOf(part.file)) !== wanted.sizeBytes) await fetchRest(part);
    const { sha256, found } = await digestsOf(part.file, wanted);
    if (announced === null || found === announced.digest) {
      await rename(part.file, wanted.file);
      return sha256;
    }
    await rm(part.file);
    if (mismatches === MAX_MISMATCHES) throw mismatch(found);
  }
}

/** Path of the file that a download grows in. */
export function partOf(file: string): string {
  return `${file}.part`;
}

/** Length of a file in bytes; null: there is none. */
export async function sizeOf(file: string): Promise<number | null> {
  return stat(file).then(
    ({ size }) => size,
    () => null,
  );
}

/** A file's SHA-256, and what is to be compared with what was announced: lower-case hex, in one reading. */
async function digestsOf(
  file: string,
  { sizeBytes, announced }: WantedFile,
): Promise<{ sha256: string; found: string }> {
  const sha256 = createHash('sha256');
  // Git hashes a header along: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects#_object_storage
  const gitSha1 = announced?.algorithm === 'git-sha1' ? createHash('sha1').update(`blob ${sizeBytes}\0`) : null;
  for await (const chunk of createReadStream(file) as AsyncIterable<Buffer>) {
    sha256.update(chunk);
    gitSha1?.update(chunk);
  }
  const digest = sha256.digest('hex');
  return { sha256: digest, found: gitSha1?.digest('hex') ?? digest };
}
