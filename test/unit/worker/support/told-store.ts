import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import type { ObjectStore } from '../../../../common/object-store.ts';
import { createObjectStore } from '../../../../worker/object-store.ts';

/** How a request is answered. */
export type Answer = (request: IncomingMessage, response: ServerResponse) => void;

/** An error in S3's words. */
export const status = (code: number, errorCode: string): Answer => {
  return (_request, response) => {
    response.writeHead(code, { 'content-type': 'application/xml' });
    response.end(`<?xml version="1.0"?><Error><Code>${errorCode}</Code><Message>told to</Message></Error>`);
  };
};

/** A body, whole. */
export const body = (text: string, headers: Record<string, string> = {}): Answer => {
  return (_request, response) => void response.writeHead(200, headers).end(text);
};

/** Announces more than it sends, then hangs up. */
export const truncated: Answer = (_request, response) => {
  response.writeHead(200, { 'content-length': '1000' });
  response.write('half');
  setTimeout(() => response.destroy(), 10);
};

/** A store, and a server in its place that answers as it is told. */
export class ToldStore {
  readonly directory = mkdtempSync(path.join(os.tmpdir(), 'brushwork-store-'));
  /** Of pictures that may be read as `file://`. */
  readonly allowed = path.join(this.directory, 'allowed');
  /** For what is downloaded. */
  readonly file = path.join(this.directory, 'file');
  /** To one request after another; the last one to all that follow. */
  answers: Answer[] = [];
  requests = 0;
  readonly #server: Server;
  #store: ObjectStore | null = null;

  constructor() {
    mkdirSync(this.allowed);
    this.#server = createServer((request, response) => {
      request.resume();
      const answer = this.answers[Math.min(this.requests, this.answers.length - 1)];
      this.requests++;
      answer?.(request, response);
    });
  }

  get origin(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get store(): ObjectStore {
    if (this.#store === null) throw new Error('The server has not been started.');
    return this.#store;
  }

  /** Names of files that downloads have left. */
  get filesLeft(): string[] {
    return readdirSync(this.directory).filter((name) => name !== 'allowed');
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    this.#store = createObjectStore({
      ...{ endpoint: this.origin, region: 'us-east-1', accessKeyId: 'key', secretAccessKey: 'secret' },
      ...{ sessionToken: null, checksums: 'when-required', fileUriRoot: this.allowed },
    });
  }

  /** Ends the server, as one that has gone. */
  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async close(): Promise<void> {
    this.#store?.close();
    await this.stop();
    rmSync(this.directory, { recursive: true });
  }
}
