import assert from 'node:assert/strict';
import { globSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pino } from 'pino';
import { ModelLoadFailedError } from '../../../common/errors.ts';
import { HubServer } from '../../support/hub-server.ts';
import { modelFiles, writeFiles } from '../../support/model-layout.ts';
import { tinySingleFile } from '../../support/single-file.ts';
import { MemoryStore } from '../activities/support/memory-store.ts';
import { baseModelSceneForEachTest } from './support/base-model.ts';
import type { BaseModelScene } from './support/base-model.ts';

const UNET = 'unet/diffusion_pytorch_model.safetensors';

describe('a base model in the cache that was damaged', () => {
  let directory: string;
  let resolve: BaseModelScene['resolve'];
  let lines: string[];

  baseModelSceneForEachTest((scene) => ({ directory, resolve } = scene));

  beforeEach(() => (lines = []));

  const logger = () => pino({ level: 'warn' }, { write: (line: string) => void lines.push(line) });
  const warnings = () => lines.filter((line) => line.includes('not what was put there'));

  /** Changes one byte; the length stays. */
  function damage(file: string): void {
    const bytes = readFileSync(file);
    bytes.writeUInt8((bytes[bytes.length >> 1] ?? 0) ^ 1, bytes.length >> 1);
    writeFileSync(file, bytes);
  }

  describe('from a hub', () => {
    let hub: HubServer;

    beforeEach(async () => (hub = await HubServer.start(modelFiles())));
    afterEach(() => hub.stop());

    const fetchModel = () =>
      resolve('artist/model', { hub: { endpoint: hub.endpoint, token: null }, logger: logger() });

    for (const name of [UNET, 'unet/config.json', 'model_index.json']) {
      it(`is told, and ${name} alone is fetched again`, async () => {
        const first = await fetchModel();
        damage(path.join(first.directory, name));
        hub.requests.length = 0;
        assert.deepEqual(await fetchModel(), first);
        assert.ok(readFileSync(path.join(first.directory, name)).equals(hub.files[name]!));
        const fetched = hub.requests.filter(({ path }) => path.includes('/resolve/'));
        assert.deepEqual(
          fetched.map(({ path }) => decodeURIComponent(path).split(`${hub.commit}/`)[1]),
          [name],
        );
        assert.equal(warnings().length, 1);
        assert.ok(warnings()[0]?.includes(`"damaged":["${name}"]`), warnings()[0]);
      });
    }

    it('is refused where the hub does not answer', async () => {
      const { directory: there } = await fetchModel();
      damage(path.join(there, UNET));
      hub.statuses.push(404);
      await assert.rejects(fetchModel(), ModelLoadFailedError);
      assert.equal(warnings().length, 1);
      await fetchModel();
    });

    it('is noticed as well in a cache of a version that noted lengths alone', async () => {
      const first = await fetchModel();
      const record = path.join(first.directory, '.complete.json');
      const entries = Object.entries(JSON.parse(readFileSync(record, 'utf8')) as Record<string, { sizeBytes: number }>);
      const lengths = Object.fromEntries(entries.map(([name, { sizeBytes }]) => [name, sizeBytes]));
      writeFileSync(record, JSON.stringify(lengths));
      hub.requests.length = 0;
      assert.deepEqual(await fetchModel(), first);
      assert.deepEqual(hub.requests, []);
      damage(path.join(first.directory, UNET));
      assert.deepEqual(await fetchModel(), first);
      assert.equal(warnings().length, 1);
    });
  });

  it('from a bucket is fetched again', async () => {
    const store = new MemoryStore();
    for (const [name, bytes] of Object.entries(modelFiles())) store.objects.set(`sd/${name}`, bytes);
    const first = await resolve('s3://bucket/sd', { store, logger: logger() });
    damage(path.join(first.directory, UNET));
    store.restReads.length = 0;
    assert.deepEqual(await resolve('s3://bucket/sd', { store, logger: logger() }), first);
    assert.deepEqual(store.restReads, [`sd/${UNET} 0`]);
    assert.equal(warnings().length, 1);
  });

  it('as a single file is fetched again, and as what was made of it made again', async () => {
    const store = new MemoryStore();
    for (const [name, bytes] of Object.entries(tinySingleFile())) store.objects.set(`sd/${name}`, bytes);
    const fetchModel = () => resolve('s3://bucket/sd/style.safetensors', { store, logger: logger() });
    const first = await fetchModel();
    damage(path.join(first.directory, UNET));
    assert.deepEqual(await fetchModel(), first);
    assert.equal(warnings().length, 1);
    const [fetched = ''] = globSync('cache/models/bucket--*/style.safetensors', { cwd: directory });
    damage(path.join(directory, fetched));
    assert.deepEqual(await fetchModel(), first);
    assert.equal(warnings().length, 2);
  });

  it('is refused where it was named by its directory', async () => {
    const store = new MemoryStore();
    for (const [name, bytes] of Object.entries(modelFiles())) store.objects.set(`sd/${name}`, bytes);
    const { directory: there } = await resolve('s3://bucket/sd', { store });
    damage(path.join(there, UNET));
    await assert.rejects(resolve(there), (error) => {
      assert.ok(error instanceof ModelLoadFailedError);
      assert.match(
        error.message,
        /is not what was put there \(by SHA-256: unet\/.*\)\. Fetch it again; if it was changed/,
      );
      return true;
    });
  });

  it('is no matter in a directory that has no record', async () => {
    const model = path.join(directory, 'mine');
    writeFiles(model, modelFiles());
    const { fingerprint } = await resolve(model);
    damage(path.join(model, UNET));
    assert.notEqual((await resolve(model)).fingerprint, fingerprint);
  });
});
