import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { timingSafeEqual } from 'node:crypto';
import type { AddressInfo } from 'node:net';

/** The three calls of the webhook contract. */
export type WebhookKind = 'progress' | 'complete' | 'failed';

/** One request that reached the backend, with what it was answered. */
export interface BackendRequest {
  receivedAtMs: number;
  method: string;
  path: string;
  /** Which webhook the path belongs to, or null for any other path. */
  kind: WebhookKind | null;
  /** Header names in lower case; the bearer token is left out. */
  headers: Record<string, string>;
  /** Parsed JSON, or null when the body was not JSON. */
  body: Record<string, unknown> | null;
  /** Status that was answered, or null when the connection was cut instead. */
  status: number | null;
  /** True when the backend processed the notice: an artist would have seen it. */
  accepted: boolean;
}

/** How the backend misbehaves; without one it keeps to the contract. */
export interface BackendBehaviour {
  /** Only these webhooks misbehave. Default: all. */
  kinds?: WebhookKind[];
  /** Only this many requests misbehave, then the backend is well again. Default: until changed. */
  times?: number;
  /** Wait this long before the answer. Default: 0. */
  delayMs?: number;
  /** Answer with this status instead of the contract's. */
  status?: number;
  /** Headers of the answer, e.g. `retry-after`. */
  headers?: Record<string, string>;
  /** Cut the connection instead of answering: before anything is processed, or after the notice was taken. */
  cut?: 'before-accepting' | 'after-accepting';
}

/** What `startBackend` needs. */
export interface BackendOptions {
  /** The bearer token that callers must show. */
  token: string;
  /** Default: any free port. */
  port?: number;
  /** Styles that exist; others answer 404. Default: every style exists. */
  styleIds?: number[];
}

/** A running backend. */
export interface Backend {
  /** Scheme, host and port, e.g. `http://127.0.0.1:40123`. */
  origin: string;
  /** Everything received so far, oldest first. */
  requests: BackendRequest[];
  /**
   * Waits for a request that has come or will come.
   *
   * @param matches - tells the wanted request
   * @param timeoutMs - default 30000
   * @throws Error that lists what came instead
   */
  waitFor(matches: (request: BackendRequest) => boolean, timeoutMs?: number): Promise<BackendRequest>;
  /** Calls `listener` for each request from now on; returns a function that ends it. */
  onRequest(listener: (request: BackendRequest) => void): () => void;
  /** Makes the backend misbehave, or keep to the contract again with null. */
  setBehaviour(behaviour: BackendBehaviour | null): void;
  /** Cuts all connections and frees the port. Idempotent. */
  stop(): Promise<void>;
}

const PATH_PREFIX = '/api/webhooks/training/';
const METHODS: Record<WebhookKind, string> = { progress: 'PATCH', complete: 'POST', failed: 'POST' };
const MAX_BODY_BYTES = 1 << 20;

type Shape = { [field: string]: 'integer' | 'number' | 'number or null' | 'string' | Shape };

const SHAPES: Record<WebhookKind, Shape> = {
  progress: {
    style_id: 'integer',
    progress: {
      current_epoch: 'integer',
      total_epochs: 'integer',
      progress_percent: 'number',
      estimated_seconds: 'number or null',
    },
  },
  complete: {
    style_id: 'integer',
    model_path: 'string',
    model_url: 'string',
    training_metric: { loss: 'number', epochs: 'integer' },
    metadata: { training_epochs: 'integer', lora_rank: 'integer', lora_alpha: 'number' },
  },
  failed: { style_id: 'integer', error_message: 'string', error_code: 'string' },
};

/**
 * Starts a small backend that speaks the webhook contract on 127.0.0.1: it checks token, source header and fields, answers
 * 200, 400, 401, 403 or 404 as the real one does, and remembers what it got.
 *
 * @throws Error when the port is taken
 */
export async function startBackend(options: BackendOptions): Promise<Backend> {
  const requests: BackendRequest[] = [];
  const listeners = new Set<(request: BackendRequest) => void>();
  let behaviour: BackendBehaviour | null = null;
  let misbehaved = 0;

  const takeBehaviour = (kind: WebhookKind | null): BackendBehaviour | null => {
    if (!behaviour || misbehaved >= (behaviour.times ?? Infinity)) return null;
    if (behaviour.kinds && (kind === null || !behaviour.kinds.includes(kind))) return null;
    misbehaved += 1;
    return behaviour;
  };

  const handle = async (incoming: IncomingMessage, response: ServerResponse): Promise<void> => {
    const receivedAtMs = Date.now();
    const body = parseObject(await readText(incoming));
    const path = new URL(incoming.url ?? '/', 'http://backend').pathname;
    const method = incoming.method ?? 'GET';
    const kind = kindOf(path);
    const current = takeBehaviour(kind);
    const verdict = judge({ kind, method, headers: incoming.headers, body }, options);
    const override = current?.cut === 'before-accepting' ? null : (current?.status ?? verdict.status);
    const status = current?.cut === 'after-accepting' ? null : override;
    const accepted = verdict.status === 200 && override !== null && override >= 200 && override < 300;
    const headers = plainHeaders(incoming);
    const request = { receivedAtMs, method, path, kind, headers, body, status, accepted };
    requests.push(request);
    for (const listener of listeners) listener(request);

    if (current?.delayMs) await new Promise((resolve) => setTimeout(resolve, current.delayMs));
    if (status === null) {
      incoming.socket.destroy();
      return;
    }
    response.writeHead(status, { 'content-type': 'application/json', ...current?.headers });
    // Many an error page shows the request that it is about.
    const { authorization } = incoming.headers;
    response.end(JSON.stringify(status === verdict.status ? verdict.answer : { detail: 'as told', authorization }));
  };

  const server = createServer((incoming, response) => {
    handle(incoming, response).catch(() => incoming.socket.destroy());
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port ?? 0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as AddressInfo;

  const onRequest = (listener: (request: BackendRequest) => void): (() => void) => {
    listeners.add(listener);
    return () => listeners.delete(listener);
  };
  return {
    origin: `http://127.0.0.1:${port}`,
    requests,
    onRequest,
    waitFor: (matches, timeoutMs = 30_000) =>
      new Promise((resolve, reject) => {
        const earlier = requests.find(matches);
        if (earlier) {
          resolve(earlier);
          return;
        }
        const timer = setTimeout(() => {
          stopListening();
          const seen = requests.map((r) => `${r.method} ${r.path} -> ${r.status ?? 'cut'}`).join(', ') || 'nothing';
          reject(new Error(`The backend did not get the expected request within ${timeoutMs} ms. It got: ${seen}.`));
        }, timeoutMs);
        const stopListening = onRequest((request) => {
          if (!matches(request)) return;
          clearTimeout(timer);
          stopListening();
          resolve(request);
        });
      }),
    setBehaviour: (next) => {
      behaviour = next;
      misbehaved = 0;
    },
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

function kindOf(path: string): WebhookKind | null {
  const kind = path.startsWith(PATH_PREFIX) ? path.slice(PATH_PREFIX.length) : '';
  return kind === 'progress' || kind === 'complete' || kind === 'failed' ? kind : null;
}

interface Question {
  kind: WebhookKind | null;
  method: string;
  headers: IncomingMessage['headers'];
  body: Record<string, unknown> | null;
}

/** The contract's answer, in the order in which the real backend checks. */
function judge({ kind, method, headers, body }: Question, options: BackendOptions): { status: number; answer: object } {
  if (kind === null) return { status: 404, answer: { detail: 'no such path' } };
  if (method !== METHODS[kind]) return { status: 405, answer: { detail: `use ${METHODS[kind]}` } };
  if (!sameText(headers.authorization ?? '', `Bearer ${options.token}`)) {
    return { status: 401, answer: { detail: 'wrong token' } };
  }
  if (headers['x-request-source'] !== 'training-server') {
    return { status: 403, answer: { detail: 'wrong source header' } };
  }
  const faults = body ? faultsOf(body, SHAPES[kind]) : ['body: not a JSON object'];
  if (faults.length > 0) return { status: 400, answer: { detail: faults } };
  if (options.styleIds && !options.styleIds.includes(body?.style_id as number)) {
    return { status: 404, answer: { detail: 'unknown style' } };
  }
  return { status: 200, answer: { success: true } };
}

function faultsOf(value: Record<string, unknown>, shape: Shape, prefix = ''): string[] {
  return Object.entries(shape).flatMap(([field, wanted]) => {
    const name = prefix + field;
    const actual = value[field];
    if (wanted === 'number or null' && actual === null) return [];
    if (actual === undefined || actual === null) return [`${name}: missing`];
    if (typeof wanted === 'object') {
      return isObject(actual) ? faultsOf(actual, wanted, `${name}.`) : [`${name}: not an object`];
    }
    const fits = wanted === 'integer' ? Number.isInteger(actual) : typeof actual === wanted.split(' ')[0];
    return fits ? [] : [`${name}: not ${wanted === 'integer' ? 'an integer' : `a ${wanted}`}`];
  });
}

function sameText(left: string, right: string): boolean {
  const [a, b] = [Buffer.from(left), Buffer.from(right)];
  return a.length === b.length && timingSafeEqual(a, b);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function parseObject(text: string): Record<string, unknown> | null {
  try {
    const value: unknown = JSON.parse(text);
    return isObject(value) ? value : null;
  } catch {
    return null;
  }
}

async function readText(incoming: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of incoming as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length;
    if (sizeBytes > MAX_BODY_BYTES) throw new Error('body too large');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function plainHeaders(incoming: IncomingMessage): Record<string, string> {
  const entries = Object.entries(incoming.headers).map(([name, value]) => [name, String(value)] as const);
  return Object.fromEntries(entries.filter(([name]) => name !== 'authorization'));
}
