import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import { ChecksumMismatchError, ModelLoadFailedError, StorageUnavailableError } from '../../../common/errors.ts';
import { modelFiles } from '../../support/model-layout.ts';
import { MemoryStore } from '../activities/support/memory-store.ts';
import { baseModelSceneForEachTest } from './support/base-model.ts';
import type { BaseModelScene } from './support/base-model.ts';

const UNET = 'unet/diffusion_pytorch_model.safetensors';
const KEY = `sd/${UNET}`;

describe('fetchBucketModel', () => {
  let directory: string;
  let resolve: BaseModelScene['resolve'];
  let store: MemoryStore;
  const fetchModel = (changes = {}) => resolve('s3://bucket/sd', { store, firstPauseMs: 1, ...changes });
  const readsOfUnet = () => store.restReads.filter((read) => read.startsWith(KEY)).map((read) => read.split(' ')[1]);
  const unet = () => store.objects.get(KEY)!;

  /** Has the store say that this is the UNet's hash. */
  function announce(sha256: string): void {
    const head = store.head.bind(store);
    store.head = async (location) => {
      const found = await head(location);
      return found !== null && location.key === KEY ? { ...found, sha256 } : found;
    };
  }

  baseModelSceneForEachTest((scene) => ({ directory, resolve } = scene));

  beforeEach(() => {
    store = new MemoryStore();
    for (const [name, bytes] of Object.entries(modelFiles())) store.objects.set(`sd/${name}`, bytes);
  });

  it('goes on where the connection broke off, as often as it brings something', async () => {
    store.cuts.set(
      KEY,
      Array.from({ length: 10 }, () => 10_000),
    );
    const { directory: there } = await fetchModel();
    assert.deepEqual(
      readsOfUnet(),
      Array.from({ length: 11 }, (_, index) => String(index * 10_000)),
    );
    assert.ok(readFileSync(path.join(there, UNET)).equals(unet()));
  });

  it('asks for nothing more when the connection breaks off behind the last byte, and the hash is right', async () => {
    announce(createHash('sha256').update(unet()).digest('hex'));
    store.cuts.set(KEY, [unet().length]);
    await fetchModel();
    assert.deepEqual(readsOfUnet(), ['0']);
  });

  it('begins anew when it breaks off behind the last byte, and there is no hash', async () => {
    store.cuts.set(KEY, [unet().length]);
    await fetchModel();
    assert.deepEqual(readsOfUnet(), ['0', '0']);
  });

  it('gives up on a store that breaks off at the same byte for ever', async () => {
    store.cuts.set(
      KEY,
      Array.from({ length: 50 }, () => 0),
    );
    await assert.rejects(fetchModel(), StorageUnavailableError);
    assert.equal(readsOfUnet().length, 6);
  });

  it('goes on where an earlier process ended', async () => {
    store.cuts.set(KEY, [100_000, ...Array.from({ length: 50 }, () => 0)]);
    await assert.rejects(fetchModel(), StorageUnavailableError);
    store.cuts.clear();
    store.restReads.length = 0;
    const { directory: there } = await fetchModel();
    assert.deepEqual(readsOfUnet(), ['100000']);
    assert.ok(readFileSync(path.join(there, UNET)).equals(unet()));
    assert.ok(!existsSync(path.join(there, `${UNET}.part`)));
  });

  it('does not go on with an object that is another one now', async () => {
    store.cuts.set(KEY, [100_000]);
    const readRest = store.readRest.bind(store);
    store.readRest = (location, request, ...rest) => {
      if (request.startBytes > 0) store.objects.set(KEY, Buffer.alloc(unet().length, 'other'));
      return readRest(location, request, ...rest);
    };
    await assert.rejects(fetchModel(), (error) => {
      assert.ok(error instanceof ModelLoadFailedError);
      assert.match(error.message, /unet\/.* of the base model s3:\/\/bucket\/sd\/ vanished or changed .*: start again/);
      return true;
    });
  });

  it('begins anew where the store gives neither tag nor hash', async () => {
    store.head = ({ key }) => {
      const bytes = store.objects.get(key);
      return Promise.resolve(bytes === undefined ? null : { sizeBytes: bytes.length });
    };
    store.cuts.set(KEY, [100_000, ...Array.from({ length: 50 }, () => 0)]);
    await assert.rejects(fetchModel(), StorageUnavailableError);
    store.cuts.clear();
    store.restReads.length = 0;
    await fetchModel();
    assert.deepEqual(readsOfUnet(), ['0']);
  });

  it('fetches a file again that is not what the store says, and refuses it the second time', async () => {
    announce(createHash('sha256').update('other').digest('hex'));
    await assert.rejects(fetchModel(), (error) => {
      assert.ok(error instanceof ChecksumMismatchError);
      assert.match(error.message, /unet\/.* of s3:\/\/bucket\/sd\/ came with the SHA-256 [0-9a-f]{64}, but the store/);
      return true;
    });
    assert.deepEqual(readsOfUnet(), ['0', '0']);
    const cache = path.join(directory, 'cache');
    const kept = readdirSync(cache, { recursive: true }).filter((file) => String(file).includes(UNET));
    assert.deepEqual(kept, []);
  });

  it('notes the hash of every file in its record', async () => {
    announce(createHash('sha256').update(unet()).digest('hex'));
    const { directory: there } = await fetchModel();
    const record = JSON.parse(readFileSync(path.join(there, '.complete.json'), 'utf8')) as Record<string, unknown>;
    for (const [name, entry] of Object.entries(record)) {
      const bytes = store.objects.get(`sd/${name}`)!;
      const sha256 = createHash('sha256').update(bytes).digest('hex');
      assert.deepEqual(entry, { sizeBytes: bytes.length, sha256 });
    }
    assert.ok(UNET in record);
  });
});
