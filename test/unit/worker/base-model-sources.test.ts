import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { cpSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { AccessDeniedError, ChecksumMismatchError } from '../../../common/errors.ts';
import { HubServer } from '../../support/hub-server.ts';
import { NEEDED_FILES, modelFiles, writeFiles } from '../../support/model-layout.ts';
import { safetensorsBytes, tinySingleFile } from '../../support/single-file.ts';
import { MemoryStore } from '../activities/support/memory-store.ts';
import { baseModelSceneForEachTest } from './support/base-model.ts';
import type { BaseModelScene } from './support/base-model.ts';

describe('resolveBaseModel, by source', () => {
  let directory: string;
  let model: string;
  let resolve: BaseModelScene['resolve'];

  baseModelSceneForEachTest((scene) => ({ directory, model, resolve } = scene));

  describe('of a single file', () => {
    let file: string;

    beforeEach(() => {
      writeFiles(path.join(directory, 'files'), tinySingleFile());
      file = path.join(directory, 'files/style.safetensors');
    });

    it('converts it, and names it by its name', async () => {
      const found = await resolve(file);
      assert.equal(found.name, 'style');
      assert.match(path.relative(directory, found.directory), /^cache\/models\/single-file--/);
      assert.equal((await resolve(found.directory)).fingerprint, found.fingerprint);
    });

    it('gives a copy elsewhere the same fingerprint, and another file another', async () => {
      const { fingerprint } = await resolve(file);
      cpSync(path.dirname(file), path.join(directory, 'copies'), { recursive: true });
      const copy = path.join(directory, 'copies/style.safetensors');
      const cacheDirectory = path.join(directory, 'other-cache');
      assert.equal((await resolve(copy, { cacheDirectory })).fingerprint, fingerprint);
      const bytes = readFileSync(copy);
      bytes.writeUInt8(1, bytes.length - 1);
      writeFileSync(copy, bytes);
      assert.notEqual((await resolve(copy)).fingerprint, fingerprint);
    });

    it('takes it from a bucket with what lies beside it, once', async () => {
      const store = new MemoryStore();
      const others = { 'other.safetensors': Buffer.of(1), 'unet/other.json': Buffer.of(1) };
      for (const [name, bytes] of Object.entries({ ...tinySingleFile(), ...others }))
        store.objects.set(`sd/${name}`, bytes);
      const downloads = store.restReads;
      const found = await resolve('s3://bucket/sd/style.safetensors', { store });
      assert.deepEqual([found.name, found.fingerprint], ['style', (await resolve(file)).fingerprint]);
      const needed = Object.keys(tinySingleFile()).map((name) => `sd/${name} 0`);
      assert.deepEqual(downloads.sort(), needed.sort());
      assert.equal((await resolve('gs://bucket/sd/style.safetensors', { store })).directory, found.directory);
      assert.equal(downloads.length, needed.length);
      store.objects.delete('sd/style.safetensors');
      await assert.rejects(
        resolve('s3://bucket/sd/style.safetensors', { store }),
        /There is no s3:\/\/bucket\/sd\/style\.safetensors: check bucket and key/,
      );
    });

    const lora = safetensorsBytes({
      'lora_unet_mid_block.lora_up.weight': { dtype: 'F16', shape: [300, 100], bytes: Buffer.alloc(60_000) },
    });

    it('refuses another kind in a bucket by its head, before it is fetched', async () => {
      const store = new MemoryStore();
      store.objects.set('sd/style.safetensors', lora);
      await assert.rejects(resolve('s3://bucket/sd/style.safetensors', { store }), /sd\/style\.safetensors is a LoRA/);
      assert.deepEqual(store.restReads, []);
    });

    for (const knowsRanges of [true, false]) {
      it(`refuses another kind on a hub that knows ${knowsRanges ? '' : 'no '}ranges by its head`, async () => {
        const hub = await HubServer.start({ 'style.safetensors': lora });
        hub.knowsRanges = knowsRanges;
        try {
          const options = { hub: { endpoint: hub.endpoint, token: null } };
          await assert.rejects(
            resolve('artist/model/style.safetensors', options),
            /The base model artist\/model@[0-9a-f]{12}\/style\.safetensors is a LoRA/,
          );
          const ranges = hub.requestsFor('style.safetensors').map(({ range }) => range);
          const headBytes = lora.readBigUInt64LE(0);
          assert.deepEqual(ranges, ['bytes=0-63', `bytes=8-${7n + headBytes}`]);
        } finally {
          await hub.stop();
        }
      });
    }

    it('takes it from a hub with what lies beside it, once', async () => {
      const files = Object.entries(tinySingleFile()).map(([name, bytes]) => [`old models/${name}`, bytes] as const);
      const hub = await HubServer.start({ ...modelFiles(), ...Object.fromEntries(files) });
      try {
        const options = { hub: { endpoint: hub.endpoint, token: null } };
        const found = await resolve('artist/model/old models/style.safetensors', options);
        assert.deepEqual([found.name, found.fingerprint], ['artist/model', (await resolve(file)).fingerprint]);
        const requestCount = hub.requests.length;
        const again = await resolve('artist/model/old models/style.safetensors@main', options);
        assert.equal(again.directory, found.directory);
        assert.equal(hub.requests.length, requestCount);
        await resolve('artist/model', options);
        await assert.rejects(
          resolve('artist/model/none.safetensors', options),
          /has no none\.safetensors: check the name/,
        );
      } finally {
        await hub.stop();
      }
    });
  });

  describe('of a hub', () => {
    let hub: HubServer;

    beforeEach(async () => (hub = await HubServer.start(modelFiles())));
    afterEach(() => hub.stop());

    it('fetches it and gives it the fingerprint that a local copy has', async () => {
      const found = await resolve('artist/model@main', { hub: { endpoint: hub.endpoint, token: null } });
      assert.equal(found.name, 'artist/model');
      assert.equal(found.fingerprint, (await resolve(model)).fingerprint);
    });

    it('prefers a directory of that name', async () => {
      const before = process.cwd();
      writeFiles(path.join(directory, 'artist/model'), modelFiles());
      try {
        process.chdir(directory);
        const found = await resolve('artist/model', { hub: { endpoint: hub.endpoint, token: null } });
        assert.equal(found.name, 'model');
      } finally {
        process.chdir(before);
      }
      assert.deepEqual(hub.requests, []);
    });

    it('hands on a wrong hash', async () => {
      hub.wrong.set('vae/config.json', 9);
      const options = { hub: { endpoint: hub.endpoint, token: null } };
      await assert.rejects(resolve('artist/model', options), ChecksumMismatchError);
    });
  });

  describe('of a bucket', () => {
    let store: MemoryStore;
    let downloads: string[];

    beforeEach(() => {
      store = new MemoryStore();
      downloads = store.restReads;
      for (const [name, bytes] of Object.entries(modelFiles())) store.objects.set(`models/sd/${name}`, bytes);
    });

    it('fetches what training reads, once', async () => {
      const found = await resolve('s3://bucket/models/sd', { store });
      assert.equal(found.name, 'sd');
      assert.equal(found.fingerprint, (await resolve(model)).fingerprint);
      assert.deepEqual(
        downloads.sort(),
        NEEDED_FILES.map((name) => `models/sd/${name} 0`),
      );
      assert.equal((await resolve('gs://bucket/models/sd/', { store })).directory, found.directory);
      assert.equal(downloads.length, NEEDED_FILES.length);
    });

    it('removes what processes have left that were killed while they fetched it', async () => {
      const { directory: there } = await resolve('s3://bucket/models/sd', { store });
      rmSync(path.join(there, '.complete.json'));
      const remain = path.join(there, `unet/diffusion_pytorch_model.safetensors.${randomUUID()}.part`);
      const goesOn = path.join(there, 'unet/diffusion_pytorch_model.safetensors.part');
      for (const file of [remain, goesOn]) writeFileSync(file, 'half');
      await resolve('s3://bucket/models/sd', { store });
      assert.deepEqual([remain, goesOn].map(existsSync), [false, true]);
    });

    it('fetches it again when it has changed', async () => {
      const first = await resolve('s3://bucket/models/sd', { store });
      store.objects.set('models/sd/unet/config.json', Buffer.from('{"in_channels": 4, "changed": true}'));
      const second = await resolve('s3://bucket/models/sd', { store });
      assert.notEqual(second.directory, first.directory);
      assert.notEqual(second.fingerprint, first.fingerprint);
    });

    it('fetches it again when the store says that bytes of the same length are others', async () => {
      let etag = 'first';
      store.head = ({ key }) => Promise.resolve({ sizeBytes: store.objects.get(key)?.length ?? 0, etag });
      const first = await resolve('s3://bucket/models/sd', { store });
      etag = 'second';
      assert.notEqual((await resolve('s3://bucket/models/sd', { store })).directory, first.directory);
    });

    it('refuses other kinds of model before it fetches any weights', async () => {
      const index = { _class_name: 'StableDiffusion3Pipeline', transformer: ['diffusers', 'SD3Transformer2DModel'] };
      store.objects.set('models/sd/model_index.json', Buffer.from(JSON.stringify(index)));
      await assert.rejects(resolve('s3://bucket/models/sd', { store }), /is a StableDiffusion3Pipeline/);
      assert.equal(downloads.length, 0);
      store.objects.set('models/sd/model_index.json', modelFiles()['model_index.json'] ?? Buffer.of());
      store.objects.set('models/sd/unet/config.json', Buffer.from('{"use_linear_projection": true}'));
      await assert.rejects(resolve('s3://bucket/models/sd', { store }), /is a Stable Diffusion 2\.x/);
      assert.ok(!downloads.some((read) => read.includes('.safetensors ')), downloads.join(' '));
    });

    it('hands on that access is denied', async () => {
      store.denied.add('models/sd/unet/config.json');
      await assert.rejects(resolve('s3://bucket/models/sd', { store }), AccessDeniedError);
    });

    for (const scheme of ['s3', 'gs']) {
      it(`says by the name that was given, ${scheme}://, that there is nothing`, async () => {
        await assert.rejects(
          resolve(`${scheme}://bucket/none`, { store }),
          new RegExp(`The base model ${scheme}://bucket/none/ lacks model_index`),
        );
        await assert.rejects(
          resolve(`${scheme}://bucket/none.safetensors`, { store }),
          new RegExp(`There is no ${scheme}://bucket/none\\.safetensors: `),
        );
      });
    }
  });
});
