import { Agent, request } from 'undici';
import type { Dispatcher } from 'undici';
import type { HubConfig } from '../common/config.ts';
import { ModelLoadFailedError } from '../common/errors.ts';
import { reasonOf } from '../common/logger.ts';
import type { Logger } from '../common/logger.ts';
import { ATTEMPTS, MAX_PAUSE_MS, PassingFault, persevere } from './persevere.ts';

const CONNECT_TIMEOUT_MS = 10_000;
const IDLE_TIMEOUT_MS = 30_000;
const MAX_REDIRECTS = 5;

/** What {@link HubClient} needs. */
export interface HubClientOptions {
  hub: HubConfig;
  logger: Logger;
  signal: AbortSignal;
  /** First pause between two tries; it doubles. Default: a second. */
  firstPauseMs?: number;
}

/** Talks to a hub: sends the token to the hub alone, follows redirects, tries again after faults that pass. */
export class HubClient {
  readonly #options: HubClientOptions;
  readonly #agent = new Agent({ connect: { timeout: CONNECT_TIMEOUT_MS } });

  constructor(options: HubClientOptions) {
    this.#options = options;
  }

  /**
   * Reads a URL until `consume` has got through.
   *
   * @param urlPath - below the endpoint, with a leading slash
   * @param name - what is read, in errors
   * @param consume - reads the answer; what it throws of the network, or a PassingFault, has it called again. It says when
   *   it has got further than any try before
   * @param headers - called before each try
   * @returns what `consume` returned
   * @throws ModelLoadFailedError when the hub refuses, or can't be reached in several tries
   */
  async read<Result>(
    urlPath: string,
    name: string,
    consume: (response: Dispatcher.ResponseData, onAdvance: () => void) => Promise<Result>,
    headers: () => Promise<Record<string, string>> = () => Promise.resolve({}),
  ): Promise<Result> {
    const { hub } = this.#options;
    const url = new URL(hub.endpoint.replace(/\/+$/, '') + urlPath);
    return persevere(async (onAdvance) => consume(await this.#get(url, name, await headers()), onAdvance), {
      ...this.#options,
      name,
      source: 'hub',
      isPassing,
      giveUp: (error) =>
        new ModelLoadFailedError(
          `${name} could not be fetched from ${url.origin} in ${ATTEMPTS} tries (${reasonOf(error)}): check the network, or name a directory of this machine (--model; of a worker BASE_MODEL).`,
          { cause: error },
        ),
    });
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  async #get(url: URL, name: string, headers: Record<string, string>): Promise<Dispatcher.ResponseData> {
    const { hub, signal } = this.#options;
    const hubOrigin = new URL(hub.endpoint).origin;
    let target = url;
    for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
      const authorization = hub.token !== null && target.origin === hubOrigin ? `Bearer ${hub.token}` : null;
      const response = await request(target, {
        dispatcher: this.#agent,
        signal,
        headersTimeout: IDLE_TIMEOUT_MS,
        bodyTimeout: IDLE_TIMEOUT_MS,
        headers: {
          ...headers,
          'accept-encoding': 'identity',
          'user-agent': 'brushwork',
          ...(authorization === null ? {} : { authorization }),
        },
      });
      if (response.statusCode === 200 || response.statusCode === 206) return response;
      response.body.on('error', () => undefined).destroy();
      const { location } = response.headers;
      if (response.statusCode < 300 || response.statusCode > 399 || typeof location !== 'string') {
        throw this.#refusal(response, name);
      }
      target = new URL(location, target);
      if (url.protocol === 'https:' && target.protocol !== 'https:') {
        throw new ModelLoadFailedError(`${name} is redirected to an address without TLS (${target.origin}): refused.`);
      }
    }
    throw new ModelLoadFailedError(`${name} is redirected more than ${MAX_REDIRECTS} times: check HF_ENDPOINT.`);
  }

  #refusal({ statusCode, headers }: Dispatcher.ResponseData, name: string): Error {
    if (statusCode === 416 || statusCode === 408 || statusCode === 425 || statusCode === 429 || statusCode >= 500) {
      const seconds = Number(headers['retry-after'] ?? Number.NaN);
      const retryAfterMs = Number.isFinite(seconds) ? Math.min(MAX_PAUSE_MS, Math.max(0, seconds) * 1000) : null;
      return new PassingFault(`the hub answered ${statusCode}`, { retryAfterMs });
    }
    const hasToken = this.#options.hub.token !== null;
    if (statusCode === 401 || statusCode === 403) {
      const remedy = hasToken
        ? 'accept its licence on the hub with the account of HF_TOKEN, or check the id and the token'
        : 'check the id; if the model needs an account, set HF_TOKEN to a token of one that may read it';
      return new ModelLoadFailedError(`The hub refuses ${name} (${statusCode}): ${remedy}.`);
    }
    if (statusCode === 404) {
      const remedy = hasToken ? 'check id and revision' : 'check id and revision, or set HF_TOKEN if it is private';
      return new ModelLoadFailedError(`The hub has no ${name} (404): ${remedy}.`);
    }
    return new ModelLoadFailedError(`The hub answered ${statusCode} for ${name}: check HF_ENDPOINT.`);
  }
}

/** Ours, or one of the network: undici's and Node's socket errors carry a code, those of the disk a path as well. */
function isPassing(error: unknown): boolean {
  if (error instanceof PassingFault) return true;
  if (!(error instanceof Error) || !('code' in error)) return false;
  if ('path' in error || typeof error.code !== 'string') return false;
  return (
    error.code.startsWith('UND_ERR_') || /^(ECONN|ENOTFOUND|EAI_|ETIMEDOUT|EPIPE|EHOST|ENET|ENOTCONN)/.test(error.code)
  );
}
