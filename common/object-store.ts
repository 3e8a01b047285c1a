/** Below it lie the probes of workers that start, if any: little to list. */
export const PROBE_PREFIX = '.brushwork-probe/';

/** An object in a bucket of the configured store. */
export interface ObjectLocation {
  bucket: string;
  key: string;
}

/** Where an image or a caption is fetched from. */
export type ImageLocation =
  | ({ kind: 'object' } & ObjectLocation)
  /** Fetched as it is, with no credentials of ours: presigned and public URLs. */
  | { kind: 'url'; url: string }
  | { kind: 'file'; file: string };

/** What was moved, as counted and hashed on the way. */
export interface TransferResult {
  sizeBytes: number;
  /** Lower-case hex. */
  sha256: string;
}

/** What is known of an object without reading it. */
export interface ObjectHead {
  sizeBytes: number;
  /** Changes with its content; absent where the store gives none. */
  etag?: string;
  /** Lower-case hex; only where the store knows the hash of the whole: what it keeps itself, else what the uploader noted as metadata `sha256`. */
  sha256?: string;
}

/** Options of `head`. */
export interface StoreHeadOptions extends StoreCallOptions {
  /** Ask for the hash that the store keeps itself. Default: false. */
  wantsSha256?: boolean;
}

/** Where to go on with an object that has been read in part. */
export interface ReadRestRequest {
  startBytes: number;
  /** Of the object that the first part was read of; null: any. */
  etag: string | null;
}

/** A piece of an object. */
export interface ByteRange {
  startBytes: number;
  /** More than 0. */
  lengthBytes: number;
}

/** Options of calls that may take long. */
export interface StoreCallOptions {
  /** Ends the call; it then rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Asked by `put`, `putIfAbsent`, `copy` and `uploadFile` before each try of a write; what it throws ends the call. */
  checkBeforeTry?: () => void;
}

/** Options of reads: nothing from outside is read without a cap. */
export interface StoreReadOptions extends StoreCallOptions {
  /** Longer objects are refused with `TooLongError`; nothing of them is left on the disk. */
  maxBytes: number;
}

/**
 * The bucket as activities see it. Every method rejects with `AccessDeniedError` when credentials are refused and with
 * `StorageUnavailableError` when the store can't be reached, asks to slow down, or broke off in the middle; a body that
 * is shorter or longer than announced is never accepted.
 */
export interface ObjectStore {
  /**
   * Streams an object into a file (written beside it and renamed: the file is whole or absent).
   *
   * @returns size and hash, or null when there is no such object
   */
  downloadFile(location: ObjectLocation, file: string, options: StoreReadOptions): Promise<TransferResult | null>;
  /**
   * The same for any place that an image can be: an object, an HTTPS URL (no redirects, public addresses only), or a
   * local file below the allowed directory.
   *
   * @returns size and hash, or null when there is nothing
   */
  downloadImage(location: ImageLocation, file: string, options: StoreReadOptions): Promise<TransferResult | null>;
  /** Reads a small object; null: it does not exist. */
  getBytes(location: ObjectLocation, options: StoreReadOptions): Promise<Buffer | null>;
  /** Reads a piece of an object that is at least so long; null: it does not exist. */
  getRange(location: ObjectLocation, range: ByteRange, options?: StoreCallOptions): Promise<Buffer | null>;
  /**
   * Reads an object from a byte on to its end.
   *
   * @param consume - takes the bytes as they arrive, with the place of the first of them: 0 where the store knows no ranges
   * @returns what `consume` returned, or null when there is no such object, or none with this tag any more
   */
  readRest<Result>(
    location: ObjectLocation,
    request: ReadRestRequest,
    consume: (body: AsyncIterable<Uint8Array>, startBytes: number) => Promise<Result>,
    options?: StoreCallOptions,
  ): Promise<Result | null>;
  /** Streams a file to an object, replacing it. */
  uploadFile(file: string, location: ObjectLocation, options?: StoreCallOptions): Promise<TransferResult>;
  /** Writes a small object unless the key is taken: the one conditional write that commits a checkpoint. */
  putIfAbsent(
    location: ObjectLocation,
    body: string | Uint8Array,
    options?: StoreCallOptions,
  ): Promise<'created' | 'exists'>;
  /** Writes a small object, replacing it. */
  put(location: ObjectLocation, body: string | Uint8Array, options?: StoreCallOptions): Promise<void>;
  /** Copies inside the store, without the bytes passing through us; replaces the target. Null: there is no source. */
  copy(from: ObjectLocation, to: ObjectLocation, options?: StoreCallOptions): Promise<{ sizeBytes: number } | null>;
  /** What is known of an object without reading it; null: it does not exist. */
  head(location: ObjectLocation, options?: StoreHeadOptions): Promise<ObjectHead | null>;
  /** All keys that start with `prefix`, sorted by code point. */
  list(bucket: string, prefix: string, options?: StoreCallOptions): Promise<string[]>;
  /** Deletes keys; those that are gone already count as deleted. */
  deleteAll(bucket: string, keys: readonly string[], options?: StoreCallOptions): Promise<void>;
  /** Start-up check: the bucket exists, can be written, and honours conditional writes. */
  probe(bucket: string, options?: StoreCallOptions): Promise<void>;
  /** Closes idle connections. */
  close(): void;
}
