import { createServer, request } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** What the proxy may do to a request. */
export type S3Flaw =
  /** 503 SlowDown, not passed on. */
  | 'slow-down'
  /** 500 InternalError, not passed on. */
  | 'error'
  /** 403 AccessDenied, not passed on. */
  | 'denied'
  /** The connection breaks in the middle of the body, of the request or else of the answer. */
  | 'cut-body'
  /** Passed on and done, but the connection breaks instead of the answer. */
  | 'lost-answer'
  /** One bit of the body is flipped, of the request or else of the answer. */
  | 'flipped-bit'
  /** "If-None-Match" counts for nothing: a write to a taken key is told to be done. */
  | 'unconditional';

/** Requests that an {@link S3Proxy} treats badly. */
export interface S3Rule {
  method: string;
  /** Matches the path with its query. */
  path: RegExp;
  flaw: S3Flaw;
  /** This many requests. */
  times: number;
}

/** A rule in force. */
export interface S3RuleInForce extends S3Rule {
  /** Requests that it has spoilt so far. */
  hits: number;
}

/** Share of a body before the bit that is flipped: in a checkpoint, a number of a tensor. */
const FLIP_AT = 0.9;

/** A request that changes something in the bucket. */
export interface S3Write {
  atMs: number;
  method: string;
  path: string;
  /** Where it came in, see {@link S3Proxy.enter}. */
  entrance: string;
}

/** A request that reads an object, or a piece of it. */
export interface S3Read {
  path: string;
  /** Null: all of it. */
  range: string | null;
  /** The tag that it must still have, or null. */
  ifMatch: string | null;
}

/** An upload that the proxy holds in the middle of its body. */
export interface HeldUpload {
  readonly isReached: boolean;
  release: () => void;
}

interface Hold {
  path: RegExp;
  reach: () => void;
  released: Promise<void>;
}

const STATUS: Partial<Record<S3Flaw, [number, string]>> = {
  'slow-down': [503, 'SlowDown'],
  error: [500, 'InternalError'],
  denied: [403, 'AccessDenied'],
};

/** Passes requests on to an S3 server, signature and all, except for those that a rule spoils. */
export class S3Proxy {
  readonly #target: URL;
  readonly #servers: Server[] = [];
  /** Everything that was asked to be changed, oldest first. */
  readonly writes: S3Write[] = [];
  /** Every GET, oldest first. */
  readonly reads: S3Read[] = [];
  readonly #rules = new Set<S3RuleInForce>();
  readonly #holds = new Set<Hold>();
  /** Uploads to such paths take that much longer. */
  #slow: { path: RegExp; byMs: number } | null = null;

  /** @param endpoint - of the S3 server */
  constructor(endpoint: string) {
    this.#target = new URL(endpoint);
  }

  /** Opens an entrance of its own for one process: host and port. */
  async enter(): Promise<string> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const entrance = `127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on('request', (incoming: IncomingMessage, response: ServerResponse) => {
      this.#handle(entrance, incoming, response).catch(() => incoming.socket.destroy());
    });
    this.#servers.push(server);
    return entrance;
  }

  /** Spoils requests until the rule is used up or {@link drop}ped. */
  spoil(rule: S3Rule): S3RuleInForce {
    const own = { ...rule, hits: 0 };
    this.#rules.add(own);
    return own;
  }

  drop(rule: S3RuleInForce): void {
    this.#rules.delete(rule);
  }

  /** Holds the next upload to such a path in the middle of its body. */
  hold(path: RegExp): HeldUpload {
    const released = Promise.withResolvers<void>();
    const upload = { isReached: false, release: released.resolve };
    const reach = () => {
      upload.isReached = true;
    };
    this.#holds.add({ path, reach, released: released.promise });
    return upload;
  }

  /** Makes uploads to such paths take longer; null: all are quick again. */
  slowDown(slow: { path: RegExp; byMs: number } | null): void {
    this.#slow = slow;
  }

  async close(): Promise<void> {
    for (const server of this.#servers) {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  async #handle(entrance: string, incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = incoming.url ?? '/';
    const method = incoming.method ?? 'GET';
    if (method !== 'GET' && method !== 'HEAD') this.writes.push({ atMs: Date.now(), method, path, entrance });
    const { range = null, 'if-match': ifMatch = null } = incoming.headers;
    if (method === 'GET') this.reads.push({ path, range, ifMatch });
    const rule = this.#ruleOf(method, path);
    const flaw = rule?.flaw ?? null;
    const isUpload = Number(incoming.headers['content-length'] ?? 0) > 0;
    const status = flaw === null ? undefined : STATUS[flaw];
    if (status !== undefined) {
      await read(incoming);
      response.writeHead(status[0], { 'content-type': 'application/xml' });
      response.end(`<?xml version="1.0"?><Error><Code>${status[1]}</Code><Message>as told</Message></Error>`);
      return;
    }
    const body = await read(incoming);
    if (isUpload && flaw === 'flipped-bit') flip(body);
    const headers = { ...incoming.headers };
    delete headers.expect;
    const outgoing = request({ host: this.#target.hostname, port: this.#target.port, method, path, headers });
    const answered = new Promise<IncomingMessage>((resolve, reject) => {
      outgoing.once('response', resolve);
      outgoing.once('error', reject);
    });
    answered.catch(() => undefined);
    // A client that goes away takes the request with it, however much of it has come.
    response.once('close', () => {
      if (!response.writableFinished) outgoing.destroy();
    });
    if (isUpload && flaw === 'cut-body') {
      outgoing.write(body.subarray(0, body.length / 2));
      setTimeout(() => outgoing.destroy(), 20);
      incoming.socket.destroy();
      return;
    }
    if (isUpload) {
      const hold = this.#holdOf(path);
      outgoing.write(body.subarray(0, body.length / 2));
      if (hold !== null) {
        hold.reach();
        await hold.released;
      }
      if (this.#slow?.path.test(path)) await sleep(this.#slow.byMs);
      outgoing.end(body.subarray(body.length / 2));
    } else outgoing.end();
    const answer = await answered;
    const content = await read(answer);
    if (flaw === 'lost-answer') {
      incoming.socket.destroy();
      return;
    }
    if (!isUpload && flaw === 'flipped-bit') flip(content);
    if (flaw === 'unconditional' && answer.statusCode === 412) {
      response.writeHead(200, { etag: '"0"' }).end();
      return;
    }
    response.writeHead(answer.statusCode ?? 502, answer.headers);
    if (!isUpload && flaw === 'cut-body') {
      response.write(content.subarray(0, content.length / 2));
      setTimeout(() => incoming.socket.destroy(), 20);
      return;
    }
    response.end(content);
  }

  #ruleOf(method: string, path: string): S3RuleInForce | null {
    for (const rule of this.#rules) {
      if (rule.method !== method || !rule.path.test(path)) continue;
      rule.times -= 1;
      rule.hits += 1;
      if (rule.times <= 0) this.#rules.delete(rule);
      return rule;
    }
    return null;
  }

  #holdOf(path: string): Hold | null {
    for (const hold of this.#holds) {
      if (!hold.path.test(path)) continue;
      this.#holds.delete(hold);
      return hold;
    }
    return null;
  }
}

async function read(message: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of message as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks);
}

function flip(body: Buffer): void {
  const at = Math.floor(body.length * FLIP_AT);
  const byte = body[at];
  if (byte !== undefined) body[at] = byte ^ 1;
}
