import { randomInt } from 'node:crypto';
import { createServer } from 'node:net';

/**
 * Below the range that Linux hands out to outgoing connections (from 32768), so that nothing takes a port by chance
 * while its server is restarted.
 */
const LOWEST_PORT = 15_000;
const HIGHEST_PORT = 32_000;

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/**
 * Picks free ports on 127.0.0.1.
 *
 * @param count - how many
 * @returns that many different ports
 * @throws Error when it finds too few
 */
export async function freePorts(count: number): Promise<number[]> {
  const ports = new Set<number>();
  for (let tries = 0; ports.size < count && tries < count * 100; tries += 1) {
    const port = randomInt(LOWEST_PORT, HIGHEST_PORT);
    if (await isFree(port)) ports.add(port);
  }
  if (ports.size < count) throw new Error(`No ${count} free ports were found on 127.0.0.1: end some programs.`);
  return [...ports];
}
