import { createConnection, createServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';

/** How a {@link Link} treats what passes it. */
type Mode = 'pass' | 'refuse' | 'stall';

/** One connection through a link. */
interface Pair {
  client: Socket;
  server: Socket;
}

/**
 * A TCP relay between a process and one of the parts it talks to, to break that connection and no other.
 *
 * - `cut`: connections end, new ones are refused, as where a machine is gone
 * - `stall`: connections stay open and nothing passes (half open), as where packets are dropped on the way
 * - `reset`: all connections are reset once
 * - `delay`: everything comes later
 */
export class Link {
  readonly #server: Server;
  readonly #port: number;
  readonly #target: { host: string; port: number };
  readonly #pairs = new Set<Pair>();
  #mode: Mode = 'pass';
  #delayMs = 0;
  #isMet = false;

  private constructor(server: Server, target: { host: string; port: number }) {
    this.#server = server;
    this.#port = (server.address() as AddressInfo).port;
    this.#target = target;
    server.on('connection', (client) => this.#connect(client));
  }

  /** Opens a link to `host:port`. */
  static async open(target: string): Promise<Link> {
    const [host = '', port = ''] = target.split(':');
    const server = createServer({ pauseOnConnect: true });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return new Link(server, { host, port: Number(port) });
  }

  /** Where to connect instead of to the target. */
  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** Whether anybody has met the break since it began: was refused, reset, delayed, or has sent what is held back. */
  get isMet(): boolean {
    const holdsBack = ({ client, server }: Pair) => client.readableLength > 0 || server.readableLength > 0;
    return this.#isMet || (this.#mode === 'stall' && [...this.#pairs].some(holdsBack));
  }

  cut(): void {
    this.#break('refuse');
    for (const { client, server } of this.#pairs) {
      client.destroy();
      server.destroy();
    }
  }

  stall(): void {
    this.#break('stall');
    for (const { client, server } of this.#pairs) {
      client.pause();
      server.pause();
    }
  }

  reset(): void {
    this.#isMet = this.#pairs.size > 0;
    for (const { client, server } of this.#pairs) {
      client.resetAndDestroy();
      server.resetAndDestroy();
    }
  }

  delay(delayMs: number): void {
    this.#isMet = false;
    this.#delayMs = delayMs;
  }

  /** All is well again; what was held back while it stalled passes now. */
  heal(): void {
    this.#isMet = this.isMet;
    this.#mode = 'pass';
    this.#delayMs = 0;
    for (const { client, server } of this.#pairs) {
      client.resume();
      server.resume();
    }
  }

  /** Ends it; until {@link Link.reopen} nobody listens at its port, as where a program is not running. */
  async close(): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** Listens again where it did before it was closed. */
  async reopen(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(this.#port, '127.0.0.1', resolve));
    this.heal();
  }

  #break(mode: Mode): void {
    this.#isMet = false;
    this.#mode = mode;
  }

  #connect(client: Socket): void {
    this.#isMet ||= this.#mode !== 'pass';
    if (this.#mode === 'refuse') {
      client.resetAndDestroy();
      return;
    }
    const server = createConnection(this.#target);
    const pair = { client, server };
    this.#pairs.add(pair);
    this.#relay(client, server, pair);
    this.#relay(server, client, pair);
    if (this.#mode === 'pass') client.resume();
    else server.pause();
  }

  #relay(from: Socket, to: Socket, pair: Pair): void {
    from.setNoDelay(true);
    from.on('data', (chunk) => {
      if (this.#delayMs === 0) to.write(chunk);
      else {
        this.#isMet = true;
        setTimeout(() => to.write(chunk), this.#delayMs);
      }
    });
    from.on('end', () => to.end());
    from.on('error', () => to.destroy());
    from.on('close', () => {
      to.destroy();
      this.#pairs.delete(pair);
    });
  }
}
