import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { BlockedTargetError, InvalidRequestError } from './errors.ts';
import type { ImageLocation } from './object-store.ts';

/** What decides which URIs are usable. */
export interface ImageUriRules {
  /** Configured S3-compatible endpoint, or null for AWS. */
  endpoint: string | null;
  /** Directory below which `file://` may point, or null: refused. */
  fileUriRoot: string | null;
}

/** Hosts of AWS S3: `s3.<region>.amazonaws.com` and its older spellings, with the bucket in front or in the path. */
const AWS_HOST =
  /^(?:(?<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])\.)?s3(?:[.-](?:dualstack\.)?[a-z0-9-]+)?\.amazonaws\.com$/;
const BUCKET = /^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$/i;
const MAX_KEY_BYTES = 1024;

/** A URI as it may be shown to anyone: without query (signatures) and user info. */
export function redactUri(uri: string): string {
  return uri.replace(/[?#].*$/s, '').replace(/^([a-z][a-z0-9+.-]*:\/\/)[^/@]*@/i, '$1');
}

/**
 * Reads an image URI of a job message.
 *
 * @param uri - `s3://bucket/key`, `gs://bucket/key`, `https://…` or, where allowed, `file:///path`
 * @param rules - what the configuration allows
 * @throws InvalidRequestError when it can't be read as one of those
 * @throws BlockedTargetError when it names a place that we may not read
 */
export function parseImageUri(uri: string, rules: ImageUriRules): ImageLocation {
  const shown = redactUri(uri);
  const match = /^([a-z][a-z0-9+.-]*):\/\//i.exec(uri);
  const scheme = match?.[1]?.toLowerCase();
  switch (scheme) {
    case 's3':
    case 'gs':
      return parseBucketUri(uri, scheme, shown, rules);
    case 'https':
    case 'http':
      return parseHttpUri(uri, shown, rules);
    case 'file':
      return parseFileUri(uri, shown, rules);
    default:
      throw new InvalidRequestError(`The image URI "${shown}" starts with none of s3://, gs://, https:// and file://.`);
  }
}

function parseBucketUri(uri: string, scheme: 's3' | 'gs', shown: string, rules: ImageUriRules): ImageLocation {
  if (scheme === 'gs' && rules.endpoint === null) {
    throw new BlockedTargetError(
      `"${shown}" is in Google Cloud Storage, but this service is configured for AWS S3: set AWS_ENDPOINT_URL=https://storage.googleapis.com and HMAC keys.`,
    );
  }
  // Keys of s3:// and gs:// URIs are taken literally, as the cloud tools do: "%20", "?" and "#" are part of a key.
  const rest = uri.slice(uri.indexOf('://') + 3);
  const slash = rest.indexOf('/');
  return objectLocation(slash < 0 ? rest : rest.slice(0, slash), slash < 0 ? '' : rest.slice(slash + 1), shown);
}

function parseHttpUri(uri: string, shown: string, rules: ImageUriRules): ImageLocation {
  const url = URL.parse(uri);
  if (url === null) throw new InvalidRequestError(`The image URI "${shown}" is not a valid URL.`);
  if (url.username !== '' || url.password !== '') {
    throw new BlockedTargetError(`"${shown}" carries a user name or password: send a presigned URL instead.`);
  }
  const endpoint = rules.endpoint === null ? null : new URL(rules.endpoint);
  const isOurPort = endpoint !== null && url.protocol === endpoint.protocol && url.port === endpoint.port;
  const isOurHost = isOurPort && url.hostname === endpoint.hostname;
  const isOurBucketHost = isOurPort && url.hostname.endsWith(`.${endpoint.hostname}`);
  if (url.protocol === 'http:' && !isOurHost && !isOurBucketHost) {
    throw new BlockedTargetError(`"${shown}" is plain http: only https is fetched.`);
  }
  if (isPresigned(url)) return { kind: 'url', url: url.href };
  if (isOurHost) {
    const base = endpoint.pathname.replace(/\/$/, '');
    if (url.pathname.startsWith(`${base}/`)) return pathStyle(url.pathname.slice(base.length), shown);
  }
  if (isOurBucketHost) {
    const bucket = url.hostname.slice(0, -endpoint.hostname.length - 1);
    return objectLocation(bucket, decodeKey(url.pathname.slice(1), shown), shown);
  }
  const aws = endpoint === null && url.port === '' ? AWS_HOST.exec(url.hostname) : null;
  if (aws !== null) {
    const bucket = aws.groups?.['bucket'];
    if (bucket === undefined) return pathStyle(url.pathname, shown);
    return objectLocation(bucket, decodeKey(url.pathname.slice(1), shown), shown);
  }
  return { kind: 'url', url: url.href };
}

/** A signed URL must be fetched as it is: its signature covers host, path and query. */
function isPresigned(url: URL): boolean {
  return ['X-Amz-Signature', 'X-Goog-Signature', 'Signature'].some((name) => url.searchParams.has(name));
}

function pathStyle(pathname: string, shown: string): ImageLocation {
  const [bucket = '', ...key] = pathname.slice(1).split('/');
  return objectLocation(bucket, decodeKey(key.join('/'), shown), shown);
}

function decodeKey(encoded: string, shown: string): string {
  try {
    return decodeURIComponent(encoded);
  } catch (error) {
    throw new InvalidRequestError(`The image URI "${shown}" has a broken percent escape.`, { cause: error });
  }
}

function objectLocation(bucket: string, key: string, shown: string): ImageLocation {
  if (!BUCKET.test(bucket)) throw new InvalidRequestError(`The image URI "${shown}" has no valid bucket name.`);
  if (key === '' || key.endsWith('/')) throw new InvalidRequestError(`The image URI "${shown}" names no object.`);
  if (Buffer.byteLength(key) > MAX_KEY_BYTES || hasControlCharacter(key)) {
    throw new InvalidRequestError(`The image URI "${shown}" has a key that no store can hold.`);
  }
  // Stores that map keys to files would leave the bucket's directory.
  if (key.split('/').some((segment) => segment === '.' || segment === '..')) {
    throw new BlockedTargetError(`The image URI "${shown}" has "." or ".." in its path.`);
  }
  return { kind: 'object', bucket, key };
}

function parseFileUri(uri: string, shown: string, rules: ImageUriRules): ImageLocation {
  if (rules.fileUriRoot === null) {
    throw new BlockedTargetError(`"${shown}" is a local file: set FILE_URI_ROOT to allow files below one directory.`);
  }
  let file: string;
  try {
    file = fileURLToPath(uri);
  } catch (error) {
    throw new InvalidRequestError(`The image URI "${shown}" is not a valid local file URI.`, { cause: error });
  }
  const relative = path.relative(path.resolve(rules.fileUriRoot), path.resolve(file));
  if (relative === '' || relative.startsWith('..') || path.isAbsolute(relative) || hasControlCharacter(file)) {
    throw new BlockedTargetError(`"${shown}" is outside the directory that FILE_URI_ROOT allows.`);
  }
  return { kind: 'file', file: path.resolve(file) };
}

function hasControlCharacter(text: string): boolean {
  return [...text].some((character) => character.charCodeAt(0) < 0x20 || character.charCodeAt(0) === 0x7f);
}

/**
 * Where the caption of an image lies: same place, same name, extension `.txt`.
 *
 * @param location - an image
 * @returns null for URLs with a query: it signs, or selects, that one object
 */
export function captionLocation(location: ImageLocation): ImageLocation | null {
  const toText = (name: string) => name.replace(/(?<=[^/])\.[^./]*$|$/, '.txt');
  switch (location.kind) {
    case 'object':
      return { ...location, key: toText(location.key) };
    case 'file':
      return { ...location, file: toText(location.file) };
    case 'url': {
      const url = new URL(location.url);
      if (url.search !== '') return null;
      url.pathname = toText(url.pathname);
      return { kind: 'url', url: url.href };
    }
  }
}
