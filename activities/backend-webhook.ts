import { Agent, request } from 'undici';
import type { Dispatcher } from 'undici';
import type { BackendClient, CompleteNotice, FailedNotice, ProgressNotice } from '../common/backend-client.ts';
import type { BackendConfig } from '../common/config.ts';
import { ConfigError, MIN_TOKEN_LENGTH } from '../common/config.ts';
import { WebhookRejectedError, WebhookUnauthorizedError, WebhookUnavailableError } from '../common/errors.ts';
import { allowedOrigin } from '../common/webhook-origin.ts';

const MAX_ANSWER_BYTES = 64 * 1024;
const MAX_SHOWN_CHARACTERS = 300;
const MAX_RETRY_AFTER_MS = 3_600_000;
const TRANSIENT_STATUSES = new Set([408, 425, 429]);

/** One call of the webhook contract. */
interface Call {
  method: 'PATCH' | 'POST';
  path: string;
  origin: string;
  body: ProgressNotice | CompleteNotice | FailedNotice;
  webhookId: string | null;
  signal: AbortSignal | undefined;
}

/**
 * The client of the backend's webhooks.
 *
 * @param config - allowed origins, token and time limit
 * @throws ConfigError when the token is missing or shorter than 32 characters
 */
export function createBackendClient(config: BackendConfig): BackendClient {
  const token = config.token ?? '';
  if (token.length < MIN_TOKEN_LENGTH) {
    throw new ConfigError([`INTERNAL_API_TOKEN must have at least ${MIN_TOKEN_LENGTH} characters.`]);
  }
  return new WebhookClient(config, token);
}

class WebhookClient implements BackendClient {
  readonly #agent: Agent;
  readonly #config: BackendConfig;
  readonly #token: string;

  constructor(config: BackendConfig, token: string) {
    this.#config = config;
    this.#token = token;
    this.#agent = new Agent({ connect: { timeout: config.timeoutMs }, maxResponseSize: MAX_ANSWER_BYTES });
  }

  async progress(origin: string, notice: ProgressNotice, signal?: AbortSignal): Promise<void> {
    const path = '/api/webhooks/training/progress';
    await this.#send({ method: 'PATCH', path, origin, body: notice, webhookId: null, signal });
  }

  async complete(origin: string, notice: CompleteNotice, webhookId: string, signal?: AbortSignal): Promise<void> {
    await this.#send({
      method: 'POST',
      path: '/api/webhooks/training/complete',
      origin,
      body: notice,
      webhookId,
      signal,
    });
  }

  async failed(origin: string, notice: FailedNotice, webhookId: string, signal?: AbortSignal): Promise<void> {
    await this.#send({
      method: 'POST',
      path: '/api/webhooks/training/failed',
      origin,
      body: notice,
      webhookId,
      signal,
    });
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  async #send(call: Call): Promise<void> {
    const origin = allowedOrigin(call.origin, this.#config.allowedOrigins);
    const name = `${call.method} ${origin}${call.path}`;
    // One limit for everything: connecting, the answer's head and its body.
    const timeout = AbortSignal.timeout(this.#config.timeoutMs);
    let response: Dispatcher.ResponseData;
    try {
      response = await request(origin + call.path, {
        method: call.method,
        headers: {
          authorization: `Bearer ${this.#token}`,
          'x-request-source': 'training-server',
          'content-type': 'application/json',
          ...(call.webhookId === null ? {} : { 'webhook-id': call.webhookId }),
        },
        body: JSON.stringify(call.body),
        dispatcher: this.#agent,
        signal: call.signal === undefined ? timeout : AbortSignal.any([timeout, call.signal]),
      });
    } catch (error) {
      call.signal?.throwIfAborted();
      const reason = timeout.aborted ? `no answer within ${this.#config.timeoutMs} ms` : reasonOf(error);
      throw new WebhookUnavailableError(`The backend did not answer ${name}: ${reason}.`, { cause: error });
    }
    // The status alone decides: once it is there, a body that breaks off changes nothing.
    const answer = await readAnswer(response);
    const refusal = refusalOf(response, name, this.#withoutToken(answer));
    if (refusal !== null) throw refusal;
  }

  /** An echo of our headers in an error page must not carry the token into logs and histories. */
  #withoutToken(text: string): string {
    return text.replaceAll(this.#token, '[token]');
  }
}

async function readAnswer(response: Dispatcher.ResponseData): Promise<string> {
  try {
    return await response.body.text();
  } catch {
    return '';
  }
}

/** What an answer means, or null when the backend has taken the notice. */
function refusalOf(response: Dispatcher.ResponseData, name: string, answer: string): Error | null {
  const status = response.statusCode;
  // 409: the backend has applied this notice already.
  if ((status >= 200 && status < 300) || status === 409) return null;
  const shown = answer.replace(/\s+/g, ' ').trim().slice(0, MAX_SHOWN_CHARACTERS);
  const said = `The backend answered ${name} with ${status}${shown === '' ? '' : `: ${shown}`}`;
  if (status === 401 || status === 403) {
    const header = status === 401 ? 'INTERNAL_API_TOKEN' : 'the header X-Request-Source or INTERNAL_API_TOKEN';
    return new WebhookUnauthorizedError(`${said}. It does not accept ${header}: make both sides use the same value.`);
  }
  if (TRANSIENT_STATUSES.has(status) || status >= 500) {
    return new WebhookUnavailableError(`${said}.`, { retryAfterMs: retryAfterMs(response.headers['retry-after']) });
  }
  return new WebhookRejectedError(
    `${said}. It will not take this notice: check BACKEND_API_URL and that the style exists.`,
  );
}

/** `Retry-After` in seconds or as a date, capped; null when absent or unreadable. */
function retryAfterMs(header: string | string[] | undefined): number | null {
  if (typeof header !== 'string') return null;
  const waitMs = /^\d+$/.test(header.trim()) ? Number(header) * 1000 : Date.parse(header) - Date.now();
  return Number.isNaN(waitMs) ? null : Math.min(MAX_RETRY_AFTER_MS, Math.max(0, waitMs));
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
