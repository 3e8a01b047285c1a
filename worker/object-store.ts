import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  CopyObjectCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import type { StoreConfig } from '../common/config.ts';
import { InternalError } from '../common/errors.ts';
import { PROBE_PREFIX } from '../common/object-store.ts';
import type {
  ByteRange,
  ImageLocation,
  ObjectHead,
  ObjectLocation,
  ObjectStore,
  ReadRestRequest,
  StoreCallOptions,
  StoreHeadOptions,
  StoreReadOptions,
  TransferResult,
} from '../common/object-store.ts';
import { askBeforeTry } from './ask-before-try.ts';
import { UrlFetcher } from './fetch-url.ts';
import { ATTEMPTS, s3ClientOptions } from './s3-client-options.ts';
import { copyLocalImage } from './local-image.ts';
import { bodyFacts, objectHead } from './object-head.ts';
import type { BodyFacts } from './object-head.ts';
import { isMissingObject, isPreconditionFailed, toStorageError } from './storage-errors.ts';
import { uploadFile } from './upload-file.ts';
import type { Upload } from './upload-file.ts';
import { collect, hashFile, md5Of, writeBody } from './write-stream.ts';

const CONFLICT_PAUSE_MS = 200;
/** Of a file whose bytes are not what the store says of them. */
const READS = 2;
const PARALLEL_DELETES = 8;

const show = ({ bucket, key }: ObjectLocation) => `s3://${bucket}/${key}`;

/**
 * The S3-compatible store of the configuration.
 *
 * @param config - endpoint, credentials and what local files may be read
 */
export function createObjectStore(config: StoreConfig): ObjectStore {
  return new S3ObjectStore(config);
}

class S3ObjectStore implements ObjectStore {
  readonly #client: S3Client;
  readonly #fetcher: UrlFetcher;
  readonly #fileUriRoot: string | null;

  constructor(config: StoreConfig) {
    this.#client = new S3Client(s3ClientOptions(config));
    this.#fetcher = new UrlFetcher(config.endpoint);
    this.#fileUriRoot = config.fileUriRoot;
  }

  async downloadFile(
    location: ObjectLocation,
    file: string,
    options: StoreReadOptions,
  ): Promise<TransferResult | null> {
    for (let read = 1; ; read++) {
      let kept: string | null = null;
      const written = await this.#read(location, options, (body, { announcedBytes, md5Base64 }) => {
        kept = md5Base64;
        return writeBody(body, file, { name: show(location), announcedBytes, maxBytes: options.maxBytes });
      });
      // Damaged on the way; or what looks like an MD5 is none.
      if (written === null || kept === null || read === READS || (await hashFile(file)).md5Base64 === kept)
        return written;
    }
  }

  async getBytes(location: ObjectLocation, options: StoreReadOptions): Promise<Buffer | null> {
    return this.#read(location, options, (body, { announcedBytes }) =>
      collect(body, { name: show(location), announcedBytes, maxBytes: options.maxBytes }),
    );
  }

  async getRange(location: ObjectLocation, range: ByteRange, options: StoreCallOptions = {}): Promise<Buffer | null> {
    const { startBytes, lengthBytes } = range;
    const limits = { name: show(location), announcedBytes: lengthBytes, maxBytes: lengthBytes };
    const header = `bytes=${startBytes}-${startBytes + lengthBytes - 1}`;
    return this.#read(location, options, (body) => collect(body, limits), { Range: header });
  }

  async readRest<Result>(
    location: ObjectLocation,
    { startBytes, etag }: ReadRestRequest,
    consume: (body: AsyncIterable<Uint8Array>, startBytes: number) => Promise<Result>,
    options: StoreCallOptions = {},
  ): Promise<Result | null> {
    return this.#read(location, options, (body, answer) => consume(body, answer.startBytes), {
      ...(startBytes > 0 && { Range: `bytes=${startBytes}-` }),
      ...(etag !== null && { IfMatch: etag }),
    });
  }

  async downloadImage(
    location: ImageLocation,
    file: string,
    options: StoreReadOptions,
  ): Promise<TransferResult | null> {
    switch (location.kind) {
      case 'object':
        return this.downloadFile(location, file, options);
      case 'url':
        return this.#fetcher.download(location.url, file, options);
      case 'file':
        return this.#call(`reading "${location.file}"`, options, () =>
          copyLocalImage(location.file, this.#fileUriRoot, file, options),
        );
    }
  }

  async uploadFile(file: string, location: ObjectLocation, options: StoreCallOptions = {}): Promise<TransferResult> {
    const { bucket: Bucket, key: Key } = location;
    const action = `writing ${show(location)} from ${file}`;
    const send = ({ body: Body, sizeBytes: ContentLength, md5Base64: ContentMD5 }: Upload) =>
      this.#call(action, options, (abort) => {
        const command = new PutObjectCommand({ Bucket, Key, Body, ContentLength, ContentMD5 });
        return this.#client.send(askBeforeTry(command, options), abort);
      });
    try {
      return await uploadFile(file, { send, attempts: ATTEMPTS, signal: options.signal });
    } catch (error) {
      options.signal?.throwIfAborted();
      throw toStorageError(error, action);
    }
  }

  async putIfAbsent(
    location: ObjectLocation,
    body: string | Uint8Array,
    options: StoreCallOptions = {},
  ): Promise<'created' | 'exists'> {
    const { bucket: Bucket, key: Key } = location;
    return this.#call(`writing ${show(location)}`, options, async (abort) => {
      try {
        const command = new PutObjectCommand({ Bucket, Key, Body: body, ContentMD5: md5Of(body), IfNoneMatch: '*' });
        await this.#client.send(askBeforeTry(command, options), abort);
        return 'created';
      } catch (error) {
        if (isPreconditionFailed(error)) return 'exists';
        throw error;
      }
    });
  }

  async put(location: ObjectLocation, body: string | Uint8Array, options: StoreCallOptions = {}): Promise<void> {
    const { bucket: Bucket, key: Key } = location;
    const command = new PutObjectCommand({ Bucket, Key, Body: body, ContentMD5: md5Of(body) });
    await this.#call(`writing ${show(location)}`, options, (abort) =>
      this.#client.send(askBeforeTry(command, options), abort),
    );
  }

  async copy(
    from: ObjectLocation,
    to: ObjectLocation,
    options: StoreCallOptions = {},
  ): Promise<{ sizeBytes: number } | null> {
    const source = `${from.bucket}/${from.key}`.split('/').map(encodeURIComponent).join('/');
    return this.#call(`copying ${show(from)} to ${show(to)}`, options, async (abort) => {
      try {
        const command = new CopyObjectCommand({ Bucket: to.bucket, Key: to.key, CopySource: source });
        await this.#client.send(askBeforeTry(command, options), abort);
      } catch (error) {
        if (isMissingObject(error)) return null;
        throw error;
      }
      return this.head(to, options);
    });
  }

  async head(location: ObjectLocation, options: StoreHeadOptions = {}): Promise<ObjectHead | null> {
    const { bucket: Bucket, key: Key } = location;
    const command = new HeadObjectCommand({ Bucket, Key, ...(options.wantsSha256 && { ChecksumMode: 'ENABLED' }) });
    return this.#call(`looking for ${show(location)}`, options, async (abort) => {
      try {
        return objectHead(await this.#client.send(command, abort));
      } catch (error) {
        if (isMissingObject(error)) return null;
        throw error;
      }
    });
  }

  async list(bucket: string, prefix: string, options: StoreCallOptions = {}): Promise<string[]> {
    return this.#call(`listing s3://${bucket}/${prefix}`, options, async (abort) => {
      const keys: string[] = [];
      let token: string | undefined;
      do {
        const page = await this.#client.send(
          new ListObjectsV2Command({ Bucket: bucket, Prefix: prefix, ...(token ? { ContinuationToken: token } : {}) }),
          abort,
        );
        for (const { Key } of page.Contents ?? []) if (Key !== undefined) keys.push(Key);
        token = page.IsTruncated === true ? page.NextContinuationToken : undefined;
      } while (token !== undefined);
      return keys.sort();
    });
  }

  async deleteAll(bucket: string, keys: readonly string[], options: StoreCallOptions = {}): Promise<void> {
    // One by one: the batch call needs checksums that not every S3-compatible store agrees on.
    const queue = [...keys];
    const work = async () => {
      for (let key = queue.pop(); key !== undefined; key = queue.pop()) {
        const command = new DeleteObjectCommand({ Bucket: bucket, Key: key });
        await this.#call(`deleting ${show({ bucket, key })}`, options, async (abort) => {
          try {
            await this.#client.send(command, abort);
          } catch (error) {
            if (!isMissingObject(error)) throw error;
          }
        });
      }
    };
    await Promise.all(Array.from({ length: Math.min(PARALLEL_DELETES, keys.length) }, work));
  }

  async probe(bucket: string, options: StoreCallOptions = {}): Promise<void> {
    const location = { bucket, key: `${PROBE_PREFIX}${randomUUID()}` };
    const first = await this.putIfAbsent(location, 'probe', options);
    try {
      const second = await this.putIfAbsent(location, 'again', options);
      if (first !== 'created' || second !== 'exists') {
        throw new InternalError(
          `The store ignores conditional writes (If-None-Match) in bucket ${bucket}: use one that honours them, or a checkpoint could be overwritten.`,
        );
      }
    } finally {
      await this.deleteAll(bucket, [location.key], options);
    }
  }

  close(): void {
    this.#client.destroy();
    this.#fetcher.close();
  }

  /** Sends a GET and hands its body on; null when there is no such object, or none that fits the conditions. */
  async #read<T>(
    location: ObjectLocation,
    options: StoreCallOptions,
    consume: (body: AsyncIterable<Uint8Array>, facts: BodyFacts) => Promise<T>,
    conditions: { Range?: string; IfMatch?: string } = {},
  ): Promise<T | null> {
    const { bucket: Bucket, key: Key } = location;
    return this.#call(`reading ${show(location)}`, options, async (abort) => {
      try {
        const command = new GetObjectCommand({ Bucket, Key, ...conditions });
        const answer = await this.#client.send(command, abort);
        const { Body } = answer;
        if (Body === undefined) throw new InternalError(`The store answered without a body for ${show(location)}.`);
        return await consume(Body as unknown as AsyncIterable<Uint8Array>, bodyFacts(answer));
      } catch (error) {
        if (isMissingObject(error) || (conditions.IfMatch !== undefined && isPreconditionFailed(error))) return null;
        throw error;
      }
    });
  }

  /** Runs one call, gives a writer that lost a race a few more tries, and maps what is thrown. */
  async #call<T>(
    action: string,
    options: StoreCallOptions,
    run: (abort: { abortSignal?: AbortSignal }) => Promise<T>,
  ): Promise<T> {
    options.signal?.throwIfAborted();
    for (let attempt = 1; ; attempt++) {
      try {
        return await run(options.signal === undefined ? {} : { abortSignal: options.signal });
      } catch (error) {
        options.signal?.throwIfAborted();
        const isConflict = error instanceof Error && error.name === 'ConditionalRequestConflict';
        if (!isConflict || attempt === ATTEMPTS) throw toStorageError(error, action);
        await pause(CONFLICT_PAUSE_MS * attempt, options.signal);
      }
    }
  }
}

async function pause(durationMs: number, signal: AbortSignal | undefined): Promise<void> {
  await sleep(durationMs, undefined, signal === undefined ? {} : { signal });
}
