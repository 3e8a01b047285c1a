import { createHash } from 'node:crypto';

function digestOf(content: object): string {
  return createHash('sha256').update(JSON.stringify(content)).digest('hex');
}

/** Adds to what is written as JSON the SHA-256 of it as JSON, by which a reader notices any damage. */
export function withDigest<Content extends object>(content: Content): Content & { digest: string } {
  return { ...content, digest: digestOf(content) };
}

/**
 * Takes the digest off what was read as JSON.
 *
 * @param value - as parsed
 * @returns the content; `value` itself where it has no digest, as what earlier versions wrote; null when it is not what its
 *   digest says
 */
export function withoutDigest(value: Record<string, unknown>): Record<string, unknown> | null {
  if (!Object.hasOwn(value, 'digest')) return value;
  const { digest, ...content } = value;
  return digest === digestOf(content) ? content : null;
}
