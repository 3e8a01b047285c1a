import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { TooLongError } from '../../../common/errors.ts';
import { ToldStore, body, status, truncated } from './support/told-store.ts';

describe('object store against a server that misbehaves', () => {
  const location = { bucket: 'bucket', key: 'folder/key' };
  let told: ToldStore;

  beforeEach(async () => {
    told = new ToldStore();
    await told.start();
  });
  afterEach(() => told.close());

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
      told.answers = [status(code, errorCode)];
      // Keys that are refused may be put right, or another pod has good ones.
      await assert.rejects(told.store.getBytes(location, { maxBytes: 10 }), { code: expected, retryable: true });
    });
  }

  it('a wrong clock costs an upload one more try, since the first refusal tells the time', async () => {
    const times: number[] = [];
    const anHourAhead = () => Date.now() + 3_600_000;
    told.answers = [0, 1].map((attempt) => (request, response) => {
      const [, ...parts] =
        /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(String(request.headers['x-amz-date'])) ?? [];
      const [year, month, day, hour, minute, second] = parts.map(Number) as [number, number, number, ...number[]];
      times.push(anHourAhead() - Date.UTC(year, month - 1, day, hour, minute, second));
      response.setHeader('date', new Date(anHourAhead()).toUTCString());
      if (attempt === 0) status(403, 'RequestTimeTooSkewed')(request, response);
      else response.end();
    });
    writeFileSync(told.file, 'body');
    await told.store.uploadFile(told.file, location);
    assert.equal(times.length, 2);
    assert.ok((times[0] ?? 0) > 3_500_000 && Math.abs(times[1] ?? Infinity) < 100_000, String(times));
  });

  it('sends the MD5 of what it writes, so that the store notices damage on the way', async () => {
    const sent: unknown[] = [];
    told.answers = [
      (request, response) => {
        sent.push(request.headers['content-md5']);
        response.end();
      },
    ];
    await told.store.put(location, 'body');
    await told.store.putIfAbsent(location, 'body');
    const md5 = createHash('md5').update('body').digest('base64');
    assert.deepEqual(sent, [md5, md5]);
  });

  it('a missing object is null, not an error', async () => {
    told.answers = [status(404, 'NoSuchKey')];
    assert.equal(await told.store.getBytes(location, { maxBytes: 10 }), null);
    assert.equal(await told.store.downloadFile(location, told.file, { maxBytes: 10 }), null);
    assert.equal(await told.store.head(location), null);
    assert.deepEqual(told.filesLeft, []);
  });

  it('a body that breaks off is never accepted', async () => {
    told.answers = [truncated];
    await assert.rejects(told.store.getBytes(location, { maxBytes: 5000 }), { code: 'STORAGE_UNAVAILABLE' });
    await assert.rejects(told.store.downloadFile(location, told.file, { maxBytes: 5000 }), {
      code: 'STORAGE_UNAVAILABLE',
    });
    assert.deepEqual(told.filesLeft, []);
  });

  it('a file that is not what its ETag says is read once more: a bit was flipped on the way', async () => {
    const etag = (text: string) => `"${createHash('md5').update(text).digest('hex')}"`;
    told.answers = [body('whOle', { etag: etag('whole') }), body('whole', { etag: etag('whole') })];
    await told.store.downloadFile(location, told.file, { maxBytes: 99 });
    assert.deepEqual([readFileSync(told.file, 'utf8'), told.requests], ['whole', 2]);
    await told.store.downloadFile(location, told.file, { maxBytes: 99 });
    assert.equal(told.requests, 3);
  });

  it('a file whose ETag is no MD5 of it is taken as it is, and where the store says so, at once', async () => {
    const etag = `"${'0'.repeat(32)}"`;
    told.answers = [body('whole', { etag })];
    await told.store.downloadFile(location, told.file, { maxBytes: 99 });
    assert.deepEqual([readFileSync(told.file, 'utf8'), told.requests], ['whole', 2]);
    told.answers = [body('whole', { etag, 'x-amz-server-side-encryption': 'aws:kms' })];
    await told.store.downloadFile(location, told.file, { maxBytes: 99 });
    assert.equal(told.requests, 3);
  });

  it('a body over the cap is refused before it is read, with what is known of it', async () => {
    told.answers = [body('x'.repeat(100), { 'content-length': '100' })];
    const start = Buffer.from('x'.repeat(100));
    const error = { code: 'INVALID_REQUEST', message: /larger than the 99 bytes/, sizeBytes: 100, start };
    await assert.rejects(told.store.getBytes(location, { maxBytes: 99 }), error);
    await assert.rejects(told.store.downloadFile(location, told.file, { maxBytes: 99 }), error);
  });

  it('a body of unannounced length is cut at the cap', async () => {
    told.answers = [body('x'.repeat(100), { 'transfer-encoding': 'chunked' })];
    const error = { code: 'INVALID_REQUEST', sizeBytes: null };
    await assert.rejects(told.store.downloadFile(location, told.file, { maxBytes: 99 }), error);
    assert.deepEqual(told.filesLeft, []);
  });

  it('a body over the cap of which only the start comes is refused all the same', async () => {
    told.answers = [truncated];
    await assert.rejects(told.store.downloadFile(location, told.file, { maxBytes: 99 }), { code: 'INVALID_REQUEST' });
    assert.deepEqual(told.filesLeft, []);
  });

  it('reads little of a body that is far over the cap', async () => {
    told.answers = [body('x'.repeat(20 * 2 ** 20), { 'content-length': String(20 * 2 ** 20) })];
    await assert.rejects(told.store.downloadFile(location, told.file, { maxBytes: 2 ** 20 }), (error) => {
      assert.ok(error instanceof TooLongError);
      return error.sizeBytes === 20 * 2 ** 20 && error.start.length >= 2 ** 16 && error.start.length < 2 ** 18;
    });
  });

  it('tries an upload again from the start of the file', async () => {
    writeFileSync(told.file, 'contents');
    const seen: string[] = [];
    told.answers = [
      status(503, 'SlowDown'),
      (request, response) => {
        request.on('data', (chunk: Buffer) => seen.push(chunk.toString()));
        request.on('end', () => response.writeHead(200).end());
      },
    ];
    const result = await told.store.uploadFile(told.file, location);
    assert.equal(seen.join(''), 'contents');
    assert.equal(result.sizeBytes, 8);
    assert.equal(result.sha256, 'd1b2a59fbea7e20077af9f91b27e95e865061b270be03ff539ab3b73587882e8');
  });

  it('an upload whose file vanishes fails, and the process goes on', async () => {
    writeFileSync(told.file, 'contents');
    told.answers = [
      (request, response) => {
        rmSync(told.file);
        status(503, 'SlowDown')(request, response);
      },
    ];
    await assert.rejects(told.store.uploadFile(told.file, location), { message: /ENOENT|not exist/ });
    assert.equal(told.requests, 1);
  });

  it('a lost race is tried again, a taken key is not an error', async () => {
    told.answers = [status(409, 'ConditionalRequestConflict'), status(412, 'PreconditionFailed')];
    assert.equal(await told.store.putIfAbsent(location, 'body'), 'exists');
    assert.equal(told.requests, 2);
  });

  it('says so when the store ignores conditional writes', async () => {
    told.answers = [(_request, response) => void response.writeHead(200).end()];
    await assert.rejects(told.store.probe('bucket'), { code: 'INTERNAL', message: /ignores conditional writes/ });
  });

  it('ends with the reason of the signal', async () => {
    told.answers = [() => undefined];
    const abort = new AbortController();
    const reason = new Error('enough');
    setTimeout(() => abort.abort(reason), 50);
    await assert.rejects(told.store.getBytes(location, { maxBytes: 10, signal: abort.signal }), reason);
    await assert.rejects(told.store.downloadFile(location, told.file, { maxBytes: 10, signal: abort.signal }), reason);
  });

  it('a server that is gone is STORAGE_UNAVAILABLE', async () => {
    await told.stop();
    await assert.rejects(told.store.head(location), { code: 'STORAGE_UNAVAILABLE' });
  });

  it('a disk that can not be written is none of the store’s doing', async () => {
    told.answers = [body('text')];
    const nowhere = path.join(told.directory, 'none', 'file');
    await assert.rejects(told.store.downloadFile(location, nowhere, { maxBytes: 10 }), {
      code: 'INTERNAL',
      message: /disk failed/,
    });
  });
});
