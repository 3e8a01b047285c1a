import { BlockedTargetError } from './errors.ts';

/**
 * Scheme, host and port of an http(s) URL.
 *
 * @param url - e.g. a message's `webhook_url`; its path and query do not count
 * @returns null when it is no such URL or carries a user name or password
 */
export function originOf(url: string): string | null {
  const parsed = URL.parse(url);
  if (parsed === null || (parsed.protocol !== 'http:' && parsed.protocol !== 'https:')) return null;
  return parsed.username === '' && parsed.password === '' ? parsed.origin : null;
}

/**
 * The origin that webhooks of a job go to.
 *
 * @param url - what the message or the workflow says
 * @param allowedOrigins - as configured: anyone who can write to the queue must not choose who gets our token
 * @throws BlockedTargetError when it is not an http(s) URL without user name, or not one of the allowed origins
 */
export function allowedOrigin(url: string, allowedOrigins: readonly string[]): string {
  const origin = originOf(url);
  if (origin === null)
    throw new BlockedTargetError('The webhook URL must be an http(s) URL without user name and password.');
  if (!allowedOrigins.includes(origin)) {
    throw new BlockedTargetError(
      `The backend ${origin} is not allowed (allowed: ${allowedOrigins.join(', ')}): add it to backend.allowedOrigins in temporal.yaml.`,
    );
  }
  return origin;
}
