import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { AccessDeniedError, StorageUnavailableError, TooLongError } from '../../../../common/errors.ts';
import type {
  ByteRange,
  ImageLocation,
  ObjectLocation,
  ObjectStore,
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
  /** What the web serves, by URL; any other answers "access denied", as an expired URL does. */
  readonly web = new Map<string, Buffer>();
  /** Reads of each key so far. */
  readonly reads: string[] = [];
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
    return Promise.resolve(bytes);
  }

  async getRange(location: ObjectLocation, { startBytes, lengthBytes }: ByteRange): Promise<Buffer | null> {
    const bytes = await this.getBytes(location, { maxBytes: Number.MAX_SAFE_INTEGER });
    return bytes?.subarray(startBytes, startBytes + lengthBytes) ?? null;
  }

  async uploadFile(file: string, location: ObjectLocation, options: StoreCallOptions = {}): Promise<TransferResult> {
    const bytes = await readFile(file);
    await this.put(location, bytes, options);
    return { sizeBytes: bytes.length, sha256: sha256(bytes) };
  }

  async putIfAbsent({ key }: ObjectLocation, body: string | Uint8Array): Promise<'created' | 'exists'> {
    await this.onWrite('putIfAbsent', key);
    if (this.objects.has(key)) return 'exists';
    this.objects.set(key, Buffer.from(body));
    return 'created';
  }

  async put({ key }: ObjectLocation, body: string | Uint8Array, { signal }: StoreCallOptions = {}): Promise<void> {
    await this.onWrite('put', key);
    signal?.throwIfAborted();
    this.objects.set(key, Buffer.from(body));
  }

  async copy(from: ObjectLocation, to: ObjectLocation): Promise<{ sizeBytes: number } | null> {
    await this.onWrite('copy', to.key);
    const bytes = this.objects.get(from.key);
    if (bytes === undefined) return null;
    this.objects.set(to.key, bytes);
    return { sizeBytes: bytes.length };
  }

  head({ key }: ObjectLocation): Promise<{ sizeBytes: number } | null> {
    const bytes = this.objects.get(key);
    return Promise.resolve(bytes === undefined ? null : { sizeBytes: bytes.length });
  }

  list(_bucket: string, prefix: string): Promise<string[]> {
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
