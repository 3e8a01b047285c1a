import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { globSync, mkdtempSync, readFileSync, rmSync, statSync, utimesSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { pino } from 'pino';
import type { BaseModel } from '../../activities/dependencies.ts';
import { loadConfig, requireSection } from '../../common/config.ts';
import { ChecksumMismatchError } from '../../common/errors.ts';
import type { ObjectStore } from '../../common/object-store.ts';
import { startStack } from '../../scripts/stack/stack.ts';
import type { Stack } from '../../scripts/stack/stack.ts';
import { resolveBaseModel } from '../../worker/base-model.ts';
import { createObjectStore } from '../../worker/object-store.ts';
import { s3ClientOptions } from '../../worker/s3-client-options.ts';
import { S3Proxy } from '../faults/support/s3-proxy.ts';
import { modelFiles } from '../support/model-layout.ts';
import { until } from './support/until.ts';

const BUCKET = 'brushwork';
const UNET = 'unet/diffusion_pytorch_model.safetensors';
const CUT = { method: 'GET', path: /unet\/diffusion_pytorch_model\.safetensors/, flaw: 'cut-body' } as const;
const FETCH_MODEL = path.join(import.meta.dirname, 'support/fetch-model.ts');

describe('a base model in a real S3 store', function () {
  this.timeout(60_000);

  const files = modelFiles();
  const unet = files[UNET] ?? Buffer.of();
  const half = unet.length / 2;
  let directory: string;
  let cacheDirectory: string;
  let stack: Stack;
  let proxy: S3Proxy;
  let env: Record<string, string>;
  let store: ObjectStore;
  let client: S3Client;

  const storage = () => requireSection(loadConfig({ env, roles: ['control'] }), 'storage');
  const upload = (name: string, options: object = {}) =>
    client.send(new PutObjectCommand({ Bucket: BUCKET, Key: `sd/${name}`, Body: files[name] ?? '', ...options }));
  const fetchModel = (): Promise<BaseModel> =>
    resolveBaseModel(`s3://${BUCKET}/sd`, {
      cacheDirectory,
      hub: { endpoint: 'http://127.0.0.1:1', token: null },
      store,
      firstPauseMs: 1,
      logger: pino({ level: 'silent' }),
      signal: new AbortController().signal,
    });
  const readsOfUnet = () => proxy.reads.filter(({ path }) => CUT.path.test(path));
  const rangesOfUnet = () => readsOfUnet().map(({ range }) => range);

  before(async () => {
    directory = mkdtempSync(path.join(os.tmpdir(), 'brushwork-bucket-'));
    stack = await startStack({ directory: path.join(directory, 'stack'), parts: ['s3'], buckets: [BUCKET] });
    env = {
      ...stack.environment(),
      BACKEND_API_URL: 'https://api.example.com',
      INTERNAL_API_TOKEN: 'a-token-of-at-least-thirty-two-characters',
    };
    client = new S3Client(s3ClientOptions(storage()));
    for (const name of Object.keys(files)) await upload(name, { ChecksumAlgorithm: 'SHA256' });
  });

  after(async () => {
    client.destroy();
    await stack.stop();
    rmSync(directory, { recursive: true });
  });

  beforeEach(async () => {
    cacheDirectory = mkdtempSync(path.join(directory, 'cache-'));
    proxy = new S3Proxy(stack.s3.endpoint);
    env['AWS_ENDPOINT_URL'] = `http://${await proxy.enter()}`;
    store = createObjectStore(storage());
  });

  afterEach(async () => {
    store.close();
    await proxy.close();
  });

  it('is fetched on from where the connection was cut, of the same object', async () => {
    proxy.spoil({ ...CUT, times: 2 });
    const { directory: there } = await fetchModel();
    assert.deepEqual(rangesOfUnet(), [null, `bytes=${half}-`, `bytes=${half * 1.5}-`]);
    const tags = new Set(readsOfUnet().map(({ ifMatch }) => ifMatch));
    assert.equal(tags.size, 1);
    assert.match([...tags][0] ?? '', /./);
    assert.ok(readFileSync(path.join(there, UNET)).equals(unet));
  });

  it('is fetched on from where a process was killed', async () => {
    proxy.spoil({ ...CUT, times: Infinity });
    const child = spawn(process.execPath, [FETCH_MODEL, `s3://${BUCKET}/sd`, cacheDirectory], {
      env: { ...process.env, ...env },
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    const exit = once(child, 'exit');
    const find = (pattern: string) => globSync(`models/*${pattern}`, { cwd: cacheDirectory })[0];
    const partBytes = () => {
      const part = find(`/${UNET}.part`);
      return part === undefined ? 0 : statSync(path.join(cacheDirectory, part)).size;
    };
    await until(() => partBytes() >= half, 'half of the UNet');
    child.kill('SIGKILL');
    await exit;
    const startBytes = partBytes();
    const lock = path.join(cacheDirectory, find('.lock') ?? '');
    const longAgo = new Date(Date.now() - 60_000);
    utimesSync(lock, longAgo, longAgo);

    await proxy.close();
    proxy = new S3Proxy(stack.s3.endpoint);
    env['AWS_ENDPOINT_URL'] = `http://${await proxy.enter()}`;
    store.close();
    store = createObjectStore(storage());
    const { directory: there } = await fetchModel();
    assert.deepEqual(rangesOfUnet(), [`bytes=${startBytes}-`]);
    assert.ok(startBytes >= half && startBytes < unet.length, String(startBytes));
    assert.ok(!proxy.reads.some(({ path }) => path.includes('text_encoder/model.safetensors')));
    assert.ok(readFileSync(path.join(there, UNET)).equals(unet));
  });

  it('is compared with the hash that the store keeps, and fetched again', async () => {
    proxy.spoil({ ...CUT, flaw: 'flipped-bit', times: 1 });
    const { directory: there } = await fetchModel();
    assert.deepEqual(rangesOfUnet(), [null, null]);
    assert.ok(readFileSync(path.join(there, UNET)).equals(unet));
  });

  it('is compared with the hash that the uploader noted, and refused', async () => {
    await upload(UNET, { Metadata: { sha256: createHash('sha256').update('other').digest('hex') } });
    await assert.rejects(fetchModel(), ChecksumMismatchError);
    assert.deepEqual(rangesOfUnet(), [null, null]);
  });
});
