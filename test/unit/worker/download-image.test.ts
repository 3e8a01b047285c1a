import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import path from 'node:path';
import { ToldStore, body, truncated } from './support/told-store.ts';

describe('a picture', () => {
  let told: ToldStore;

  beforeEach(async () => {
    told = new ToldStore();
    await told.start();
  });
  afterEach(() => told.close());

  describe('by URL', () => {
    const fetch = (url: string, maxBytes = 1000) =>
      told.store.downloadImage({ kind: 'url', url }, told.file, { maxBytes });

    it('fetches from our own store, private as it is', async () => {
      told.answers = [body('picture')];
      const result = await fetch(`${told.origin}/bucket/a.jpg?X-Amz-Signature=1`);
      assert.equal(result?.sizeBytes, 7);
      assert.equal(readFileSync(told.file, 'utf8'), 'picture');
    });

    it('sends no credentials of ours', async () => {
      let headers: IncomingMessage['headers'] = {};
      told.answers = [(request, response) => void ((headers = request.headers), response.writeHead(200).end())];
      await fetch(`${told.origin}/a.jpg`);
      assert.equal(headers.authorization, undefined);
    });

    const byStatus: [number, string | null][] = [
      [404, null],
      [410, null],
      [401, 'ACCESS_DENIED'],
      [403, 'ACCESS_DENIED'],
      [302, 'BLOCKED_TARGET'],
      [429, 'STORAGE_UNAVAILABLE'],
      [502, 'STORAGE_UNAVAILABLE'],
      [206, 'INVALID_REQUEST'],
      [451, 'INVALID_REQUEST'],
    ];
    for (const [code, expected] of byStatus) {
      it(`status ${code} is ${expected ?? 'nothing there'}`, async () => {
        told.answers = [(_request, response) => void response.writeHead(code, { location: '/other' }).end('x')];
        if (expected === null) assert.equal(await fetch(`${told.origin}/a.jpg`), null);
        else await assert.rejects(fetch(`${told.origin}/a.jpg`), { code: expected });
        assert.equal(told.requests, 1);
      });
    }

    it('refuses a body that breaks off, and one over the cap', async () => {
      told.answers = [truncated, body('x'.repeat(100))];
      await assert.rejects(fetch(`${told.origin}/a.jpg`), { code: 'STORAGE_UNAVAILABLE' });
      await assert.rejects(fetch(`${told.origin}/a.jpg`, 99), { code: 'INVALID_REQUEST' });
      assert.deepEqual(told.filesLeft, []);
    });

    it('refuses private hosts, by address and by name, before connecting', async () => {
      const { port } = told;
      for (const host of ['127.0.0.2', '[::1]', 'localhost']) {
        await assert.rejects(fetch(`https://${host}:${port}/a.jpg`), { code: 'BLOCKED_TARGET' }, host);
      }
      assert.equal(told.requests, 0);
    });
  });

  describe('of a local file', () => {
    const fetch = (source: string) =>
      told.store.downloadImage({ kind: 'file', file: source }, told.file, { maxBytes: 1000 });
    const inside = (name: string) => path.join(told.allowed, name);

    it('copies it', async () => {
      writeFileSync(inside('a.jpg'), 'picture');
      assert.equal((await fetch(inside('a.jpg')))?.sizeBytes, 7);
      assert.equal(readFileSync(told.file, 'utf8'), 'picture');
    });

    it('is null when there is none', async () => {
      assert.equal(await fetch(inside('none.jpg')), null);
    });

    it('refuses a link that leads out', async () => {
      writeFileSync(path.join(told.directory, 'outside.jpg'), 'secret');
      symlinkSync(path.join(told.directory, 'outside.jpg'), inside('link.jpg'));
      await assert.rejects(fetch(inside('link.jpg')), { code: 'BLOCKED_TARGET' });
    });

    it('refuses what is not a file', async () => {
      mkdirSync(inside('folder.jpg'));
      await assert.rejects(fetch(inside('folder.jpg')), { code: 'BLOCKED_TARGET' });
    });
  });
});
