import type { HeadObjectCommandOutput } from '@aws-sdk/client-s3';
import type { ObjectHead } from '../common/object-store.ts';

const BASE64 = /^[A-Za-z0-9+/]{43}=$/;
const HEX = /^[0-9a-f]{64}$/;

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
