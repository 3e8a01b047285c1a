import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** A request that a {@link HubServer} received. */
export interface HubRequest {
  path: string;
  range: string | null;
  authorization: string | null;
}

const COMMIT = createHash('sha1').update('the only commit').digest('hex');
const REVISIONS = ['main', 'refs/pr/1', COMMIT];
const LARGE_BYTES = 50_000;

/**
 * One model on a server that speaks a hub's HTTP interface: the listing of a revision, and files, of which the large ones
 * are redirected to another origin as on the real one. Faults are switched on by its fields.
 */
export class HubServer {
  readonly id = 'artist/model';
  readonly commit = COMMIT;
  readonly requests: HubRequest[] = [];
  /** Stays the same when the server has stopped. */
  endpoint = '';
  files: Record<string, Buffer>;
  /** Files whose next answers break off after this many bytes of their body, one entry each. */
  readonly cuts = new Map<string, number[]>();
  /** Statuses that the next requests of any kind are answered with. */
  readonly statuses: number[] = [];
  /** Files that come with other bytes than announced; the count of answers that are wrong. */
  readonly wrong = new Map<string, number>();
  /** A token that all requests need, or null. */
  token: string | null = null;
  knowsRanges = true;
  /** What the listing says instead of the truth, or null. */
  listing: string | null = null;
  readonly #hub: Server;
  readonly #store: Server;

  private constructor(files: Record<string, Buffer>) {
    this.files = files;
    this.#hub = createServer((request, response) => this.#answer(request, response));
    this.#store = createServer((request, response) => {
      this.#note(request);
      this.#sendFile(decodeURIComponent((request.url ?? '').slice('/blobs/'.length)), request, response);
    });
  }

  static async start(files: Record<string, Buffer>): Promise<HubServer> {
    const server = new HubServer(files);
    for (const part of [server.#hub, server.#store]) {
      await new Promise<void>((resolve) => part.listen(0, '127.0.0.1', resolve));
    }
    server.endpoint = `http://127.0.0.1:${portOf(server.#hub)}/mirror`;
    return server;
  }

  /** Requests for one file, redirected ones once. */
  requestsFor(name: string): HubRequest[] {
    return this.requests.filter(({ path }) => path === `/blobs/${encodeURIComponent(name)}`);
  }

  async stop(): Promise<void> {
    for (const part of [this.#hub, this.#store]) {
      part.closeAllConnections();
      if (part.listening) await new Promise((resolve) => part.close(resolve));
    }
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    this.#note(request);
    const status = this.statuses.shift();
    const isRefused = this.token !== null && request.headers.authorization !== `Bearer ${this.token}`;
    if (status !== undefined || isRefused) {
      response.writeHead(status ?? 401, status === 429 ? { 'retry-after': '0' } : {}).end('{"error": "no"}');
      return;
    }
    const path = (request.url ?? '').slice('/mirror'.length);
    const revision = /^\/api\/models\/artist\/model\/revision\/([^/?]+)\?blobs=true$/.exec(path)?.[1];
    if (revision !== undefined && REVISIONS.includes(decodeURIComponent(revision))) {
      response.end(this.listing ?? JSON.stringify({ id: this.id, sha: COMMIT, siblings: this.#siblings() }));
      return;
    }
    const name = decodeURIComponent(path.split(`/artist/model/resolve/${COMMIT}/`)[1] ?? '');
    const bytes = this.files[name];
    if (bytes === undefined) {
      response.writeHead(404).end();
    } else if (bytes.length >= LARGE_BYTES) {
      const location = `http://127.0.0.1:${portOf(this.#store)}/blobs/${encodeURIComponent(name)}`;
      response.writeHead(302, { location }).end('moved');
    } else {
      this.#sendFile(name, request, response);
    }
  }

  #note(request: IncomingMessage): void {
    const { range = null, authorization = null } = request.headers;
    this.requests.push({ path: request.url ?? '', range, authorization });
  }

  #siblings(): object[] {
    return Object.entries(this.files).map(([rfilename, bytes]) => {
      const size = bytes.length;
      const blobId = createHash('sha1').update(`blob ${size}\0`).update(bytes).digest('hex');
      const sha256 = createHash('sha256').update(bytes).digest('hex');
      return { rfilename, size, blobId, ...(size >= LARGE_BYTES ? { lfs: { sha256, size, pointerSize: 134 } } : {}) };
    });
  }

  #sendFile(name: string, request: IncomingMessage, response: ServerResponse): void {
    let bytes = this.files[name] ?? Buffer.alloc(0);
    const wrongAnswers = this.wrong.get(name) ?? 0;
    if (wrongAnswers > 0) {
      this.wrong.set(name, wrongAnswers - 1);
      bytes = Buffer.from(bytes).fill('x', 0, 10);
    }
    const [, start, last] = (this.knowsRanges && /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '')) || [];
    const body = bytes.subarray(
      Number(start ?? 0),
      last === undefined || last === '' ? bytes.length : Number(last) + 1,
    );
    const cut = this.cuts.get(name)?.shift();
    response.writeHead(start === undefined ? 200 : 206, {
      'content-length': body.length,
      ...(start === undefined
        ? {}
        : { 'content-range': `bytes ${start}-${Number(start) + body.length - 1}/${bytes.length}` }),
    });
    if (cut === undefined) response.end(body);
    else response.write(body.subarray(0, cut), () => setTimeout(() => response.destroy(), 50));
  }
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}
