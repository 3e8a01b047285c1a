import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { AccessDeniedError, StorageUnavailableError, TooLongError } from '../../../../common/errors.ts';
import type {
  ByteRange,
  ImageLocation,
  ObjectHead,
  ObjectLocation,
  ObjectStore,
  ReadRestRequest,
  StoreCallOptions,
  StoreReadOptions,
  TransferResult,
} from '../../../../common/object-store.ts';

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

function tooLong(name: string, bytes: Buffer, sizeBytes: number | null): TooLongError {
  return new TooLongError(`${name} is too long.`, { sizeBytes, start: bytes.subarray(0, 2 ** 16) });
}

/** A bucket in memory. */
export class MemoryStore implements ObjectStore {
  readonly objects = new Map<string, Buffer>();
  /** Keys that answer "access denied". */
  readonly denied = new Set<string>();
  /** Keys that can't be read just now. */
  readonly unavailable = new Set<string>();
  /** Of each key, how many of its next reads have a bit flipped on their way. */
  readonly flips = new Map<string, number>();
  /** What the web serves, by URL; any other answers "access denied", as an expired URL does. */
  readonly web = new Map<string, Buffer>();
  /** Reads of each key so far. */
  readonly reads: string[] = [];
  /** Each call of `readRest`, as key and first byte. */
  readonly restReads: string[] = [];
  /** Keys whose next reads by `readRest` break off after so many bytes, one entry each. */
  readonly cuts = new Map<string, number[]>();
  /** Called before each write and delete, with the verb and the key. */
  onWrite: (verb: string, key: string) => Promise<void> | void = () => undefined;

  keys(prefix = ''): string[] {
    return [...this.objects.keys()].filter((key) => key.startsWith(prefix)).sort();
  }

  async downloadFile(
    location: ObjectLocation,
    file: string,
    options: StoreReadOptions,
  ): Promise<TransferResult | null> {
    const bytes = await this.getBytes(location, options);
    if (bytes === null) return null;
    await writeFile(file, bytes);
    return { sizeBytes: bytes.length, sha256: sha256(bytes) };
  }

  async downloadImage(
    location: ImageLocation,
    file: string,
    options: StoreReadOptions,
  ): Promise<TransferResult | null> {
    if (location.kind === 'file') throw new Error('No files here.');
    if (location.kind === 'object') return this.downloadFile(location, file, options);
    const bytes = this.web.get(location.url);
    if (bytes === undefined) throw new AccessDeniedError('The presigned URL has expired.');
    if (bytes.length > options.maxBytes) throw tooLong(location.url, bytes, null);
    await writeFile(file, bytes);
    return { sizeBytes: bytes.length, sha256: sha256(bytes) };
  }

  getBytes({ key }: ObjectLocation, { maxBytes, signal }: StoreReadOptions): Promise<Buffer | null> {
    signal?.throwIfAborted();
    this.reads.push(key);
    if (this.unavailable.has(key)) return Promise.reject(new StorageUnavailableError(`${key} is unavailable.`));
    if (this.denied.has(key)) return Promise.reject(new AccessDeniedError(`${key} is denied.`, { retryable: true }));
    const bytes = this.objects.get(key) ?? null;
    if (bytes !== null && bytes.length > maxBytes) return Promise.reject(tooLong(key, bytes, bytes.length));
    return Promise.resolve(bytes === null ? null : this.#flipped(key, bytes));
  }

  #flipped(key: string, bytes: Buffer): Buffer {
    const count = this.flips.get(key) ?? 0;
    if (count === 0) return bytes;
    this.flips.set(key, count - 1);
    const copy = Buffer.from(bytes);
    copy[copy.length - 1] = (copy.at(-1) ?? 0) ^ 1;
    return copy;
  }

  async getRange(location: ObjectLocation, { startBytes, lengthBytes }: ByteRange): Promise<Buffer | null> {
    const bytes = await this.getBytes(location, { maxBytes: Number.MAX_SAFE_INTEGER });
    return bytes?.subarray(startBytes, startBytes + lengthBytes) ?? null;
  }

  async readRest<Result>(
    location: ObjectLocation,
    { startBytes, etag }: ReadRestRequest,
    consume: (body: AsyncIterable<Uint8Array>, startBytes: number) => Promise<Result>,
  ): Promise<Result | null> {
    const { key } = location;
    this.restReads.push(`${key} ${startBytes}`);
    const bytes = await this.getBytes(location, { maxBytes: Number.MAX_SAFE_INTEGER });
    if (bytes === null || (etag !== null && etag !== (await this.head(location))?.etag)) return null;
    const cut = this.cuts.get(key)?.shift();
    async function* body() {
      yield bytes!.subarray(startBytes, cut === undefined ? undefined : startBytes + cut);
      if (cut !== undefined) throw new StorageUnavailableError('The connection broke off.');
    }
    return consume(body(), startBytes);
  }

  async uploadFile(file: string, location: ObjectLocation, options: StoreCallOptions = {}): Promise<TransferResult> {
    const bytes = await readFile(file);
    await this.put(location, bytes, options);
    return { sizeBytes: bytes.length, sha256: sha256(bytes) };
  }

  async putIfAbsent(
    { key }: ObjectLocation,
    body: string | Uint8Array,
    { checkBeforeTry }: StoreCallOptions = {},
  ): Promise<'created' | 'exists'> {
    checkBeforeTry?.();
    await this.onWrite('putIfAbsent', key);
    if (this.objects.has(key)) return 'exists';
    this.objects.set(key, Buffer.from(body));
    return 'created';
  }

  async put(
    { key }: ObjectLocation,
    body: string | Uint8Array,
    { signal, checkBeforeTry }: StoreCallOptions = {},
  ): Promise<void> {
    checkBeforeTry?.();
    await this.onWrite('put', key);
    signal?.throwIfAborted();
    this.objects.set(key, Buffer.from(body));
  }

  async copy(
    from: ObjectLocation,
    to: ObjectLocation,
    options: StoreCallOptions = {},
  ): Promise<{ sizeBytes: number } | null> {
    options.signal?.throwIfAborted();
    await this.onWrite('copy', to.key);
    const bytes = this.objects.get(from.key);
    if (bytes === undefined) return null;
    this.objects.set(to.key, bytes);
    return { sizeBytes: bytes.length };
  }

  head({ key }: ObjectLocation): Promise<ObjectHead | null> {
    const bytes = this.objects.get(key);
    if (bytes === undefined) return Promise.resolve(null);
    return Promise.resolve({ sizeBytes: bytes.length, etag: `"${sha256(bytes).slice(0, 32)}"` });
  }

  list(_bucket: string, prefix: string, options: StoreCallOptions = {}): Promise<string[]> {
    options.signal?.throwIfAborted();
    return Promise.resolve(this.keys(prefix));
  }

  async deleteAll(_bucket: string, keys: readonly string[]): Promise<void> {
    for (const key of keys) {
      await this.onWrite('delete', key);
      this.objects.delete(key);
    }
  }

  probe(): Promise<void> {
    return Promise.resolve();
  }

  close(): void {
    this.objects.clear();
  }
}
