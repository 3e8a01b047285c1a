import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  CompleteMultipartUploadCommand,
  CreateMultipartUploadCommand,
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { loadConfig, requireSection } from '../../common/config.ts';
import type { StorageConfig } from '../../common/config.ts';
import { parseImageUri } from '../../common/image-uri.ts';
import type { ObjectStore } from '../../common/object-store.ts';
import { startStack } from '../../scripts/stack/stack.ts';
import type { Stack } from '../../scripts/stack/stack.ts';
import { createObjectStore } from '../../worker/object-store.ts';
import { s3ClientOptions } from '../../worker/s3-client-options.ts';

const BUCKET = 'brushwork';

describe('object store on a real S3 server', () => {
  let directory: string;
  let stack: Stack;
  let config: StorageConfig;
  let store: ObjectStore;
  const file = (name: string) => path.join(directory, name);
  const at = (key: string) => ({ bucket: BUCKET, key });

  before(async () => {
    directory = mkdtempSync(path.join(os.tmpdir(), 'brushwork-s3-'));
    stack = await startStack({ directory: file('stack'), parts: ['s3'], buckets: [BUCKET, 'images'] });
    const env = {
      ...stack.environment(),
      BACKEND_API_URL: 'https://api.example.com',
      INTERNAL_API_TOKEN: 'a-token-of-at-least-thirty-two-characters',
    };
    config = requireSection(loadConfig({ env, roles: ['control'] }), 'storage');
    store = createObjectStore(config);
  });

  after(async () => {
    store.close();
    await stack.stop();
    rmSync(directory, { recursive: true });
  });

  it('passes the start-up probe and leaves nothing behind', async () => {
    await store.probe(BUCKET);
    assert.deepEqual(await store.list(BUCKET, '.brushwork-probe/'), []);
  });

  it('brings back the bytes of a file, with their hash', async () => {
    const bytes = randomBytes(20 * 1024 * 1024 + 7);
    writeFileSync(file('source'), bytes);
    const expected = { sizeBytes: bytes.length, sha256: createHash('sha256').update(bytes).digest('hex') };
    assert.deepEqual(await store.uploadFile(file('source'), at('a/big.bin')), expected);
    assert.deepEqual(await store.downloadFile(at('a/big.bin'), file('target'), { maxBytes: 1e8 }), expected);
    assert.ok(readFileSync(file('target')).equals(bytes));
    assert.equal((await store.head(at('a/big.bin')))?.sizeBytes, bytes.length);
    assert.match((await store.head(at('a/big.bin')))?.etag ?? '', /./);
  });

  it('brings back a piece of an object, and says when it is shorter', async () => {
    await store.put(at('a/piece'), 'abcdefgh');
    assert.equal(String(await store.getRange(at('a/piece'), { startBytes: 2, lengthBytes: 3 })), 'cde');
    assert.equal(await store.getRange(at('none'), { startBytes: 0, lengthBytes: 1 }), null);
    const tooLong = store.getRange(at('a/piece'), { startBytes: 6, lengthBytes: 3 });
    await assert.rejects(tooLong, { code: 'STORAGE_UNAVAILABLE' });
  });

  it('reads an object from a byte on, as long as it is the same', async () => {
    await store.put(at('a/rest'), 'abcdefgh');
    const etag = (await store.head(at('a/rest')))?.etag ?? '';
    const readRest = (startBytes: number, tag: string | null = etag) =>
      store.readRest(at('a/rest'), { startBytes, etag: tag }, async (body, start) => {
        const chunks: Uint8Array[] = [];
        for await (const chunk of body) chunks.push(chunk);
        return `${start} ${Buffer.concat(chunks).toString()}`;
      });
    assert.equal(await readRest(0), '0 abcdefgh');
    assert.equal(await readRest(3), '3 defgh');
    await store.put(at('a/rest'), 'ABCDEFGH');
    assert.equal(await readRest(3), null);
    assert.equal(await readRest(3, null), '3 DEFGH');
    assert.equal(await store.readRest(at('none'), { startBytes: 0, etag: null }, () => assert.fail()), null);
  });

  it('knows the SHA-256 of an object where it was uploaded as a whole, or noted', async () => {
    const client = new S3Client(s3ClientOptions(config));
    const sha256 = createHash('sha256').update('abc').digest('hex');
    const put = (key: string, options: object) =>
      client.send(new PutObjectCommand({ Bucket: BUCKET, Key: key, Body: 'abc', ...options }));
    await put('hash/kept', { ChecksumAlgorithm: 'SHA256' });
    await put('hash/noted', { Metadata: { sha256: sha256.toUpperCase() } });
    await put('hash/none', { Metadata: { sha256: 'unknown' } });
    const target = { Bucket: BUCKET, Key: 'hash/parts' };
    const { UploadId } = await client.send(
      new CreateMultipartUploadCommand({ ...target, ChecksumAlgorithm: 'SHA256', ChecksumType: 'COMPOSITE' }),
    );
    const part = { ...target, UploadId, PartNumber: 1 };
    const sent = await client.send(new UploadPartCommand({ ...part, Body: 'abc', ChecksumAlgorithm: 'SHA256' }));
    const Parts = [{ PartNumber: 1, ETag: sent.ETag, ChecksumSHA256: sent.ChecksumSHA256 }];
    await client.send(new CompleteMultipartUploadCommand({ ...target, UploadId, MultipartUpload: { Parts } }));
    client.destroy();
    const known = async (key: string) => (await store.head(at(key), { wantsSha256: true }))?.sha256;
    assert.equal(await known('hash/kept'), sha256);
    assert.equal(await known('hash/noted'), sha256);
    assert.equal(await known('hash/none'), undefined);
    assert.equal(await known('hash/parts'), undefined);
  });

  it('brings back an empty file', async () => {
    writeFileSync(file('empty'), '');
    await store.uploadFile(file('empty'), at('a/empty'));
    assert.equal((await store.downloadFile(at('a/empty'), file('empty-target'), { maxBytes: 1 }))?.sizeBytes, 0);
  });

  it('copes with every character that a key may have', async () => {
    const key = 'odd/그림 ü+&=@:,;$?#%20"\'()[]{}~|^`<>.txt';
    await store.put(at(key), key);
    assert.equal(String(await store.getBytes(at(key), { maxBytes: 1000 })), key);
    assert.deepEqual(await store.list(BUCKET, 'odd/'), [key]);
    assert.equal((await store.copy(at(key), at('odd/copy')))?.sizeBytes, Buffer.byteLength(key));
    await store.deleteAll(BUCKET, [key, 'odd/copy']);
    assert.deepEqual(await store.list(BUCKET, 'odd/'), []);
  });

  it('says null for what is not there', async () => {
    assert.equal(await store.getBytes(at('none'), { maxBytes: 1 }), null);
    assert.equal(await store.downloadFile(at('none'), file('none'), { maxBytes: 1 }), null);
    assert.equal(await store.head(at('none')), null);
    assert.equal(await store.copy(at('none'), at('copy-of-none')), null);
    assert.ok(!readdirSync(directory).some((name) => name.startsWith('none')));
  });

  it('lets exactly one of many writers commit a key', async () => {
    const writers = Array.from({ length: 12 }, (_, index) => store.putIfAbsent(at('manifest.json'), `writer ${index}`));
    const results = await Promise.all(writers);
    const winner = results.indexOf('created');
    assert.equal(results.filter((result) => result === 'created').length, 1);
    assert.equal(String(await store.getBytes(at('manifest.json'), { maxBytes: 100 })), `writer ${winner}`);
  });

  it('lists more keys than one page holds, in order', async () => {
    const keys = Array.from({ length: 1005 }, (_, index) => `many/${String(index).padStart(4, '0')}`);
    for (let start = 0; start < keys.length; start += 100) {
      await Promise.all(keys.slice(start, start + 100).map((key) => store.put(at(key), '')));
    }
    assert.deepEqual(await store.list(BUCKET, 'many/'), keys);
    await store.deleteAll(BUCKET, keys);
    assert.deepEqual(await store.list(BUCKET, 'many/'), []);
  });

  it('overwrites a copy’s target and deletes what is gone already', async () => {
    await store.put(at('from'), 'new');
    await store.put(at('to'), 'older');
    assert.equal((await store.copy(at('from'), at('to')))?.sizeBytes, 3);
    assert.equal(String(await store.getBytes(at('to'), { maxBytes: 10 })), 'new');
    await store.deleteAll(BUCKET, ['to', 'to', 'never-was']);
  });

  it('fetches an image by each kind of URI for our store', async () => {
    await store.put({ bucket: 'images', key: 'a b.jpg' }, 'picture');
    const uris = ['s3://images/a b.jpg', 'gs://images/a b.jpg', `${stack.s3.endpoint}/images/a%20b.jpg`];
    for (const uri of uris) {
      const result = await store.downloadImage(parseImageUri(uri, config), file('image'), { maxBytes: 100 });
      assert.equal(result?.sizeBytes, 7, uri);
    }
  });

  it('works with the checksums that AWS itself likes to have', async () => {
    const careful = createObjectStore({ ...config, checksums: 'when-supported' });
    writeFileSync(file('checked'), randomBytes(300_000));
    const sent = await careful.uploadFile(file('checked'), at('checked'));
    assert.deepEqual(await careful.downloadFile(at('checked'), file('checked-target'), { maxBytes: 1e6 }), sent);
    assert.equal(await careful.putIfAbsent(at('checked'), 'other'), 'exists');
    careful.close();
  });

  it('is told apart from a wrong key: ACCESS_DENIED', async () => {
    const stranger = createObjectStore({ ...config, secretAccessKey: 'wrong' });
    await assert.rejects(stranger.list(BUCKET, ''), { code: 'ACCESS_DENIED' });
    await assert.rejects(stranger.head(at('a')), { code: 'ACCESS_DENIED' });
    await assert.rejects(stranger.probe(BUCKET), { code: 'ACCESS_DENIED' });
    stranger.close();
  });

  it('is told apart from a wrong bucket: ACCESS_DENIED that names it', async () => {
    const error = { code: 'ACCESS_DENIED', message: /no-such-bucket/ };
    await assert.rejects(store.getBytes({ bucket: 'no-such-bucket', key: 'a' }, { maxBytes: 1 }), error);
    await assert.rejects(store.list('no-such-bucket', ''), error);
    await assert.rejects(store.probe('no-such-bucket'), error);
  });

  it('uploads again once a store that was gone is back', async () => {
    writeFileSync(file('late'), 'late');
    await stack.parts.s3.stop();
    await assert.rejects(store.uploadFile(file('late'), at('late')), { code: 'STORAGE_UNAVAILABLE' });
    await stack.parts.s3.start();
    await store.uploadFile(file('late'), at('late'));
  });

  it('ends at once when it is told to, also while the store hangs', async () => {
    stack.parts.s3.pause();
    // All of its threads stop, but not at once.
    await sleep(500);
    try {
      const startedAtMs = Date.now();
      const signal = AbortSignal.timeout(300);
      await assert.rejects(store.uploadFile(file('late'), at('hangs'), { signal }), { name: 'TimeoutError' });
      assert.ok(Date.now() - startedAtMs < 2000);
    } finally {
      stack.parts.s3.resume();
    }
  });
});
