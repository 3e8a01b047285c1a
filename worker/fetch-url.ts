import { Agent, request } from 'undici';
import type { Dispatcher } from 'undici';
import {
  AccessDeniedError,
  BlockedTargetError,
  BrushworkError,
  InvalidRequestError,
  StorageUnavailableError,
} from '../common/errors.ts';
import { redactUri } from '../common/image-uri.ts';
import type { StoreReadOptions, TransferResult } from '../common/object-store.ts';
import { publicLookup, refusePrivateLiteral } from './public-address.ts';
import { isDiskError, toStorageError } from './storage-errors.ts';
import { writeBody } from './write-stream.ts';

const CONNECT_TIMEOUT_MS = 10_000;
const IDLE_TIMEOUT_MS = 30_000;
/** For one object, however busy: a host that sends a byte now and then is never idle. A picture of 10 MiB needs 90 KB/s. */
const LIMIT_MS = 120_000;

const timeouts = { headersTimeout: IDLE_TIMEOUT_MS, bodyTimeout: IDLE_TIMEOUT_MS };

/** Fetches images by public and presigned URLs, without any credentials of ours. */
export class UrlFetcher {
  readonly #trustedOrigin: string | null;
  readonly #limitMs: number;
  readonly #publicAgent = new Agent({ connect: { timeout: CONNECT_TIMEOUT_MS, lookup: publicLookup } });
  readonly #trustedAgent = new Agent({ connect: { timeout: CONNECT_TIMEOUT_MS } });

  /**
   * @param endpoint - the configured store: the one host that may have a private address; null: none
   * @param limitMs - for one object, from the question to its last byte
   */
  constructor(endpoint: string | null, limitMs = LIMIT_MS) {
    this.#trustedOrigin = endpoint === null ? null : new URL(endpoint).origin;
    this.#limitMs = limitMs;
  }

  /**
   * Fetches a URL into a file.
   *
   * @returns size and hash; null when the server says that there is nothing
   * @throws BlockedTargetError for private addresses and redirects
   * @throws AccessDeniedError, StorageUnavailableError, InvalidRequestError by the server's answer
   * @throws StorageUnavailableError when it takes too long
   */
  async download(url: string, file: string, options: StoreReadOptions): Promise<TransferResult | null> {
    const target = new URL(url);
    const isTrusted = target.origin === this.#trustedOrigin;
    if (!isTrusted) refusePrivateLiteral(target);
    const dispatcher = isTrusted ? this.#trustedAgent : this.#publicAgent;
    const name = `"${redactUri(url)}"`;
    const late = AbortSignal.timeout(this.#limitMs);
    try {
      const response = await request(target, {
        ...timeouts,
        dispatcher,
        headers: { 'accept-encoding': 'identity' },
        signal: options.signal === undefined ? late : AbortSignal.any([options.signal, late]),
      });
      if (response.statusCode === 200) {
        const announced = response.headers['content-length'];
        const announcedBytes = typeof announced === 'string' ? Number(announced) : null;
        return await writeBody(response.body, file, { name, announcedBytes, maxBytes: options.maxBytes });
      }
      response.body.on('error', () => undefined).destroy();
      return refuse(response, name);
    } catch (error) {
      options.signal?.throwIfAborted();
      if (late.aborted) {
        throw new StorageUnavailableError(
          `${name} was not here after ${this.#limitMs / 1000} s: its server, or the way to it, is too slow. Where that stays so, put it elsewhere.`,
          { cause: error },
        );
      }
      throw toFetchError(error, name);
    }
  }

  close(): void {
    for (const agent of [this.#publicAgent, this.#trustedAgent]) agent.destroy().catch(() => undefined);
  }
}

function refuse({ statusCode }: Dispatcher.ResponseData, name: string): null {
  if (statusCode === 404 || statusCode === 410) return null;
  if (statusCode === 401 || statusCode === 403) {
    throw new AccessDeniedError(`The server of ${name} refused access (${statusCode}): has the presigned URL expired?`);
  }
  if (statusCode >= 300 && statusCode < 400) {
    throw new BlockedTargetError(`${name} redirects elsewhere (${statusCode}): send the final URL.`);
  }
  if (statusCode === 408 || statusCode === 425 || statusCode === 429 || statusCode >= 500) {
    throw new StorageUnavailableError(`The server of ${name} can't serve it now (${statusCode}).`);
  }
  throw new InvalidRequestError(`The server of ${name} answered ${statusCode} instead of an image.`);
}

function toFetchError(error: unknown, name: string): Error {
  // What our lookup throws arrives wrapped.
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof BrushworkError) return cause;
  }
  if (isDiskError(error)) return toStorageError(error, `saving ${name}`);
  const reason = error instanceof Error ? error.message : String(error);
  return new StorageUnavailableError(`${name} could not be fetched: ${reason}.`, { cause: error });
}
