import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { PodLostError } from '../../../common/errors.ts';
import type { ObjectStore, StoreCallOptions } from '../../../common/object-store.ts';
import { createObjectStore } from '../../../worker/object-store.ts';

describe('writes to a store that fails', () => {
  const location = { bucket: 'bucket', key: 'folder/key' };
  const frozen = new PodLostError('Frozen until now.');
  let directory: string;
  let file: string;
  let server: Server;
  let store: ObjectStore;
  let answer: { status: number; code: string };
  let requests: number;

  beforeEach(async () => {
    directory = await mkdtemp(path.join(os.tmpdir(), 'brushwork-ask-'));
    file = path.join(directory, 'file');
    await writeFile(file, 'contents');
    requests = 0;
    server = createServer((request, response) => {
      request.resume();
      requests += 1;
      response.writeHead(answer.status, { 'content-type': 'application/xml' });
      response.end(`<?xml version="1.0"?><Error><Code>${answer.code}</Code></Error>`);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    store = createObjectStore({
      endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
      ...{ region: 'us-east-1', accessKeyId: 'key', secretAccessKey: 'secret', sessionToken: null, bucket: 'bucket' },
      ...{ checksums: 'when-required', keepCheckpoints: 2, keepFinalCheckpoints: 1, fileUriRoot: null },
    });
  });

  afterEach(async () => {
    store.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    await rm(directory, { recursive: true });
  });

  /** Says no once something was sent. */
  const checkBeforeTry = () => {
    if (requests > 0) throw frozen;
  };

  for (const [what, write] of [
    ['an upload', (options: StoreCallOptions) => store.uploadFile(file, location, options)],
    ['a small object', (options: StoreCallOptions) => store.put(location, 'body', options)],
    ['a conditional write', (options: StoreCallOptions) => store.putIfAbsent(location, 'body', options)],
    ['a copy', (options: StoreCallOptions) => store.copy(location, { bucket: 'bucket', key: 'copy' }, options)],
  ] as const) {
    it(`ask before each try of ${what}: a process that was frozen in between may write nothing more`, async () => {
      answer = { status: 503, code: 'SlowDown' };
      await assert.rejects(write({ checkBeforeTry }), frozen);
      assert.equal(requests, 1);
    });
  }

  it('ask before they try again after a lost race', async () => {
    answer = { status: 409, code: 'ConditionalRequestConflict' };
    await assert.rejects(store.putIfAbsent(location, 'body', { checkBeforeTry }), frozen);
    assert.equal(requests, 1);
  });

  it('are repeated where nothing speaks against it', async () => {
    answer = { status: 503, code: 'SlowDown' };
    const yes = () => undefined;
    await assert.rejects(store.put(location, 'body', { checkBeforeTry: yes }), { code: 'STORAGE_UNAVAILABLE' });
    assert.equal(requests, 3);
  });
});
