import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { UrlFetcher } from '../../../worker/fetch-url.ts';

const LIMIT_MS = 300;

describe('UrlFetcher and a server that sends a byte now and then', () => {
  let directory: string;
  let server: Server;
  let origin: string;
  let fetcher: UrlFetcher;
  let drip: NodeJS.Timeout;

  beforeEach(async () => {
    directory = mkdtempSync(path.join(os.tmpdir(), 'brushwork-drip-'));
    server = createServer((request, response) => {
      if (request.url === '/silent.png') return;
      if (request.url === '/slow.txt') {
        setTimeout(() => response.end('a hill'), LIMIT_MS / 3);
        return;
      }
      response.writeHead(200, { 'content-length': '1000000' });
      drip = setInterval(() => response.write('.'), 10);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    fetcher = new UrlFetcher(origin, LIMIT_MS);
  });

  afterEach(async () => {
    clearInterval(drip);
    fetcher.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    rmSync(directory, { recursive: true });
  });

  const download = (name: string, signal?: AbortSignal) =>
    fetcher.download(`${origin}/${name}`, path.join(directory, name), {
      maxBytes: 2_000_000,
      ...(signal && { signal }),
    });

  for (const name of ['drip.png', 'silent.png']) {
    it(`does not wait for ever for ${name}`, async () => {
      await assert.rejects(download(name), { code: 'STORAGE_UNAVAILABLE', message: /was not here after 0\.3 s/ });
      assert.deepEqual(readdirSync(directory), []);
    });
  }

  it('waits for what comes in time', async () => {
    assert.equal((await download('slow.txt'))?.sizeBytes, 6);
  });

  it('ends with the reason of the signal where that comes first', async () => {
    const leaving = new Error('leaving');
    const controller = new AbortController();
    setTimeout(() => controller.abort(leaving), 50);
    await assert.rejects(download('drip.png', controller.signal), leaving);
  });
});
