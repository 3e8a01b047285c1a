import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { TooLongError } from '../../../common/errors.ts';
import type { ObjectStore } from '../../../common/object-store.ts';
import { createObjectStore } from '../../../worker/object-store.ts';

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

const status = (code: number, errorCode: string): Answer => {
  return (_request, response) => {
    response.writeHead(code, { 'content-type': 'application/xml' });
    response.end(`<?xml version="1.0"?><Error><Code>${errorCode}</Code><Message>told to</Message></Error>`);
  };
};

const body = (text: string, headers: Record<string, string> = {}): Answer => {
  return (_request, response) => void response.writeHead(200, headers).end(text);
};

/** Announces more than it sends, then hangs up. */
const truncated: Answer = (_request, response) => {
  response.writeHead(200, { 'content-length': '1000' });
  response.write('half');
  setTimeout(() => response.destroy(), 10);
};

describe('object store against a server that misbehaves', () => {
  const location = { bucket: 'bucket', key: 'folder/key' };
  let directory: string;
  let file: string;
  let server: Server;
  let origin: string;
  let store: ObjectStore;
  let answers: Answer[];
  let requests: number;

  beforeEach(async () => {
    directory = mkdtempSync(path.join(os.tmpdir(), 'brushwork-store-'));
    mkdirSync(path.join(directory, 'allowed'));
    file = path.join(directory, 'file');
    answers = [];
    requests = 0;
    server = createServer((request, response) => {
      request.resume();
      const answer = answers[Math.min(requests, answers.length - 1)];
      requests++;
      answer?.(request, response);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    store = createObjectStore({
      endpoint: origin,
      region: 'us-east-1',
      accessKeyId: 'key',
      secretAccessKey: 'secret',
      sessionToken: null,
      checksums: 'when-required',
      fileUriRoot: path.join(directory, 'allowed'),
    });
  });

  afterEach(async () => {
    store.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    rmSync(directory, { recursive: true });
  });

  const filesLeft = () => readdirSync(directory).filter((name) => name !== 'allowed');

  const codes: [number, string, string][] = [
    [500, 'InternalError', 'STORAGE_UNAVAILABLE'],
    [503, 'SlowDown', 'STORAGE_UNAVAILABLE'],
    [503, 'ServiceUnavailable', 'STORAGE_UNAVAILABLE'],
    [429, 'TooManyRequests', 'STORAGE_UNAVAILABLE'],
    [400, 'RequestTimeout', 'STORAGE_UNAVAILABLE'],
    [401, 'Unauthorized', 'ACCESS_DENIED'],
    [403, 'AccessDenied', 'ACCESS_DENIED'],
    [403, 'InvalidAccessKeyId', 'ACCESS_DENIED'],
    [403, 'SignatureDoesNotMatch', 'ACCESS_DENIED'],
    [403, 'RequestTimeTooSkewed', 'STORAGE_UNAVAILABLE'],
    [404, 'NoSuchBucket', 'ACCESS_DENIED'],
    [400, 'InvalidRequest', 'INTERNAL'],
  ];
  for (const [code, errorCode, expected] of codes) {
    it(`${code} ${errorCode} is ${expected}`, async () => {
      answers = [status(code, errorCode)];
      // Keys that are refused may be put right, or another pod has good ones.
      await assert.rejects(store.getBytes(location, { maxBytes: 10 }), { code: expected, retryable: true });
    });
  }

  it('a wrong clock costs an upload one more try, since the first refusal tells the time', async () => {
    const times: number[] = [];
    const anHourAhead = () => Date.now() + 3_600_000;
    answers = [0, 1].map((attempt) => (request, response) => {
      const [, ...parts] =
        /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(String(request.headers['x-amz-date'])) ?? [];
      const [year, month, day, hour, minute, second] = parts.map(Number) as [number, number, number, ...number[]];
      times.push(anHourAhead() - Date.UTC(year, month - 1, day, hour, minute, second));
      response.setHeader('date', new Date(anHourAhead()).toUTCString());
      if (attempt === 0) status(403, 'RequestTimeTooSkewed')(request, response);
      else response.end();
    });
    writeFileSync(file, 'body');
    await store.uploadFile(file, location);
    assert.equal(times.length, 2);
    assert.ok((times[0] ?? 0) > 3_500_000 && Math.abs(times[1] ?? Infinity) < 100_000, String(times));
  });

  it('sends the MD5 of what it writes, so that the store notices damage on the way', async () => {
    const sent: unknown[] = [];
    answers = [
      (request, response) => {
        sent.push(request.headers['content-md5']);
        response.end();
      },
    ];
    await store.put(location, 'body');
    await store.putIfAbsent(location, 'body');
    const md5 = createHash('md5').update('body').digest('base64');
    assert.deepEqual(sent, [md5, md5]);
  });

  it('a missing object is null, not an error', async () => {
    answers = [status(404, 'NoSuchKey')];
    assert.equal(await store.getBytes(location, { maxBytes: 10 }), null);
    assert.equal(await store.downloadFile(location, file, { maxBytes: 10 }), null);
    assert.equal(await store.head(location), null);
    assert.deepEqual(filesLeft(), []);
  });

  it('a body that breaks off is never accepted', async () => {
    answers = [truncated];
    await assert.rejects(store.getBytes(location, { maxBytes: 5000 }), { code: 'STORAGE_UNAVAILABLE' });
    await assert.rejects(store.downloadFile(location, file, { maxBytes: 5000 }), { code: 'STORAGE_UNAVAILABLE' });
    assert.deepEqual(filesLeft(), []);
  });

  it('a file that is not what its ETag says is read once more: a bit was flipped on the way', async () => {
    const etag = (text: string) => `"${createHash('md5').update(text).digest('hex')}"`;
    answers = [body('whOle', { etag: etag('whole') }), body('whole', { etag: etag('whole') })];
    await store.downloadFile(location, file, { maxBytes: 99 });
    assert.deepEqual([readFileSync(file, 'utf8'), requests], ['whole', 2]);
    await store.downloadFile(location, file, { maxBytes: 99 });
    assert.equal(requests, 3);
  });

  it('a file whose ETag is no MD5 of it is taken as it is, and where the store says so, at once', async () => {
    const etag = `"${'0'.repeat(32)}"`;
    answers = [body('whole', { etag })];
    await store.downloadFile(location, file, { maxBytes: 99 });
    assert.deepEqual([readFileSync(file, 'utf8'), requests], ['whole', 2]);
    answers = [body('whole', { etag, 'x-amz-server-side-encryption': 'aws:kms' })];
    await store.downloadFile(location, file, { maxBytes: 99 });
    assert.equal(requests, 3);
  });

  it('a body over the cap is refused before it is read, with what is known of it', async () => {
    answers = [body('x'.repeat(100), { 'content-length': '100' })];
    const start = Buffer.from('x'.repeat(100));
    const error = { code: 'INVALID_REQUEST', message: /larger than the 99 bytes/, sizeBytes: 100, start };
    await assert.rejects(store.getBytes(location, { maxBytes: 99 }), error);
    await assert.rejects(store.downloadFile(location, file, { maxBytes: 99 }), error);
  });

  it('a body of unannounced length is cut at the cap', async () => {
    answers = [body('x'.repeat(100), { 'transfer-encoding': 'chunked' })];
    const error = { code: 'INVALID_REQUEST', sizeBytes: null };
    await assert.rejects(store.downloadFile(location, file, { maxBytes: 99 }), error);
    assert.deepEqual(filesLeft(), []);
  });

  it('a body over the cap of which only the start comes is refused all the same', async () => {
    answers = [truncated];
    await assert.rejects(store.downloadFile(location, file, { maxBytes: 99 }), { code: 'INVALID_REQUEST' });
    assert.deepEqual(filesLeft(), []);
  });

  it('reads little of a body that is far over the cap', async () => {
    answers = [body('x'.repeat(20 * 2 ** 20), { 'content-length': String(20 * 2 ** 20) })];
    await assert.rejects(store.downloadFile(location, file, { maxBytes: 2 ** 20 }), (error) => {
      assert.ok(error instanceof TooLongError);
      return error.sizeBytes === 20 * 2 ** 20 && error.start.length >= 2 ** 16 && error.start.length < 2 ** 18;
    });
  });

  it('tries an upload again from the start of the file', async () => {
    writeFileSync(file, 'contents');
    const seen: string[] = [];
    answers = [
      status(503, 'SlowDown'),
      (request, response) => {
        request.on('data', (chunk: Buffer) => seen.push(chunk.toString()));
        request.on('end', () => response.writeHead(200).end());
      },
    ];
    const result = await store.uploadFile(file, location);
    assert.equal(seen.join(''), 'contents');
    assert.equal(result.sizeBytes, 8);
    assert.equal(result.sha256, 'd1b2a59fbea7e20077af9f91b27e95e865061b270be03ff539ab3b73587882e8');
  });

  it('an upload whose file vanishes fails, and the process goes on', async () => {
    writeFileSync(file, 'contents');
    answers = [
      (request, response) => {
        rmSync(file);
        status(503, 'SlowDown')(request, response);
      },
    ];
    await assert.rejects(store.uploadFile(file, location), { message: /ENOENT|not exist/ });
    assert.equal(requests, 1);
  });

  it('a lost race is tried again, a taken key is not an error', async () => {
    answers = [status(409, 'ConditionalRequestConflict'), status(412, 'PreconditionFailed')];
    assert.equal(await store.putIfAbsent(location, 'body'), 'exists');
    assert.equal(requests, 2);
  });

  it('says so when the store ignores conditional writes', async () => {
    answers = [(_request, response) => void response.writeHead(200).end()];
    await assert.rejects(store.probe('bucket'), { code: 'INTERNAL', message: /ignores conditional writes/ });
  });

  it('ends with the reason of the signal', async () => {
    answers = [() => undefined];
    const abort = new AbortController();
    const reason = new Error('enough');
    setTimeout(() => abort.abort(reason), 50);
    await assert.rejects(store.getBytes(location, { maxBytes: 10, signal: abort.signal }), reason);
    await assert.rejects(store.downloadFile(location, file, { maxBytes: 10, signal: abort.signal }), reason);
  });

  it('a server that is gone is STORAGE_UNAVAILABLE', async () => {
    await new Promise((resolve) => server.close(resolve));
    await assert.rejects(store.head(location), { code: 'STORAGE_UNAVAILABLE' });
  });

  it('a disk that can not be written is none of the store’s doing', async () => {
    answers = [body('text')];
    const nowhere = path.join(directory, 'none', 'file');
    await assert.rejects(store.downloadFile(location, nowhere, { maxBytes: 10 }), {
      code: 'INTERNAL',
      message: /disk failed/,
    });
  });

  describe('downloadImage by URL', () => {
    const fetch = (url: string, maxBytes = 1000) => store.downloadImage({ kind: 'url', url }, file, { maxBytes });

    it('fetches from our own store, private as it is', async () => {
      answers = [body('picture')];
      const result = await fetch(`${origin}/bucket/a.jpg?X-Amz-Signature=1`);
      assert.equal(result?.sizeBytes, 7);
      assert.equal(readFileSync(file, 'utf8'), 'picture');
    });

    it('sends no credentials of ours', async () => {
      let headers: IncomingMessage['headers'] = {};
      answers = [(request, response) => void ((headers = request.headers), response.writeHead(200).end())];
      await fetch(`${origin}/a.jpg`);
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
        answers = [(_request, response) => void response.writeHead(code, { location: '/other' }).end('x')];
        if (expected === null) assert.equal(await fetch(`${origin}/a.jpg`), null);
        else await assert.rejects(fetch(`${origin}/a.jpg`), { code: expected });
        assert.equal(requests, 1);
      });
    }

    it('refuses a body that breaks off, and one over the cap', async () => {
      answers = [truncated, body('x'.repeat(100))];
      await assert.rejects(fetch(`${origin}/a.jpg`), { code: 'STORAGE_UNAVAILABLE' });
      await assert.rejects(fetch(`${origin}/a.jpg`, 99), { code: 'INVALID_REQUEST' });
      assert.deepEqual(filesLeft(), []);
    });

    it('refuses private hosts, by address and by name, before connecting', async () => {
      const { port } = server.address() as AddressInfo;
      for (const host of ['127.0.0.2', '[::1]', 'localhost']) {
        await assert.rejects(fetch(`https://${host}:${port}/a.jpg`), { code: 'BLOCKED_TARGET' }, host);
      }
      assert.equal(requests, 0);
    });
  });

  describe('downloadImage of a local file', () => {
    const fetch = (source: string) => store.downloadImage({ kind: 'file', file: source }, file, { maxBytes: 1000 });
    const inside = (name: string) => path.join(directory, 'allowed', name);

    it('copies it', async () => {
      writeFileSync(inside('a.jpg'), 'picture');
      assert.equal((await fetch(inside('a.jpg')))?.sizeBytes, 7);
      assert.equal(readFileSync(file, 'utf8'), 'picture');
    });

    it('is null when there is none', async () => {
      assert.equal(await fetch(inside('none.jpg')), null);
    });

    it('refuses a link that leads out', async () => {
      writeFileSync(path.join(directory, 'outside.jpg'), 'secret');
      symlinkSync(path.join(directory, 'outside.jpg'), inside('link.jpg'));
      await assert.rejects(fetch(inside('link.jpg')), { code: 'BLOCKED_TARGET' });
    });

    it('refuses what is not a file', async () => {
      mkdirSync(inside('folder.jpg'));
      await assert.rejects(fetch(inside('folder.jpg')), { code: 'BLOCKED_TARGET' });
    });
  });
});
