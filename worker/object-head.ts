import type { GetObjectCommandOutput, HeadObjectCommandOutput } from '@aws-sdk/client-s3';
import type { ObjectHead } from '../common/object-store.ts';
import { rangeStart } from './write-stream.ts';

const BASE64 = /^[A-Za-z0-9+/]{43}=$/;
const HEX = /^[0-9a-f]{64}$/;

const MD5_ETAG = /^"?([0-9a-f]{32})"?$/;

/** What a store says of a body that it sends. */
export interface BodyFacts {
  announcedBytes: number | null;
  /** Where in the object it begins. */
  startBytes: number;
  /** MD5 of the whole object in base64, where the store tells it. */
  md5Base64: string | null;
}

/** What a store said of a body. */
export function bodyFacts(answer: GetObjectCommandOutput): BodyFacts {
  const { ContentLength: announcedBytes = null, ContentRange } = answer;
  return { announcedBytes, startBytes: rangeStart(ContentRange) ?? 0, md5Base64: wholeMd5(answer) };
}

/** Where its ETag is one: that of an object that came in parts, or is encrypted by a key of the customer's, is something else. */
function wholeMd5({ ETag, ServerSideEncryption, SSECustomerAlgorithm }: GetObjectCommandOutput): string | null {
  if (ServerSideEncryption?.startsWith('aws:kms') === true || SSECustomerAlgorithm !== undefined) return null;
  const hex = MD5_ETAG.exec(ETag ?? '')?.[1];
  return hex === undefined ? null : Buffer.from(hex, 'hex').toString('base64');
}

/** What a store said of an object, in our words; `sha256` where it knows one. */
export function objectHead(answer: HeadObjectCommandOutput): ObjectHead {
  const { ContentLength: sizeBytes = 0, ETag: etag } = answer;
  const sha256 = wholeSha256(answer);
  return { sizeBytes, ...(etag !== undefined && { etag }), ...(sha256 !== null && { sha256 }) };
}

/** What the store computed, else what the uploader noted. A hash over the hashes of an upload's parts is no use. */
function wholeSha256({ ChecksumSHA256: kept = '', ChecksumType, Metadata }: HeadObjectCommandOutput): string | null {
  if (ChecksumType !== 'COMPOSITE' && BASE64.test(kept)) return Buffer.from(kept, 'base64').toString('hex');
  const noted = Metadata?.['sha256']?.toLowerCase() ?? '';
  return HEX.test(noted) ? noted : null;
}
