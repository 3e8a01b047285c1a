import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, readdir, rm, truncate, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { pino } from 'pino';
import sharp from 'sharp';
import { ChecksumMismatchError, ModelLoadFailedError } from '../../common/errors.ts';
import { loadAddon } from '../../native/index.ts';
import { writeRandomBaseModel } from '../../native/trainer/random-base-model.ts';
import { fetchHubModel } from '../../worker/hub-download.ts';
import type { FetchHubModelOptions } from '../../worker/hub-download.ts';
import { HubServer } from '../support/hub-server.ts';
import { NEEDED_FILES, STABLE_DIFFUSION_INDEX, modelFiles } from '../support/model-layout.ts';

const UNET = 'unet/diffusion_pytorch_model.safetensors';
const CLI = path.join(import.meta.dirname, '../../cli/main.ts');
const MODEL = { id: 'artist/model', revision: 'main' };

describe('download from a hub', function () {
  this.timeout(20_000);

  let hub: HubServer;
  let cacheDirectory: string;
  let lines: string[];

  beforeEach(async () => {
    hub = await HubServer.start(modelFiles());
    cacheDirectory = await mkdtemp(path.join(tmpdir(), 'brushwork-hub-'));
    lines = [];
  });

  afterEach(async () => {
    await hub.stop();
    await rm(cacheDirectory, { recursive: true });
  });

  const fetchModel = (changes: Partial<FetchHubModelOptions> = {}, model = MODEL) =>
    fetchHubModel(model, {
      cacheDirectory,
      hub: { endpoint: hub.endpoint, token: null },
      logger: pino({ level: 'debug' }, { write: (line: string) => void lines.push(line) }),
      signal: new AbortController().signal,
      firstPauseMs: 1,
      ...changes,
    });

  const filesIn = async (directory: string) => {
    const entries = await readdir(directory, { recursive: true, withFileTypes: true });
    return entries
      .filter((entry) => entry.isFile() && !entry.name.startsWith('.'))
      .map((entry) => path.relative(directory, path.join(entry.parentPath, entry.name)))
      .sort();
  };

  it('fetches what training reads and nothing else, byte by byte', async () => {
    const progress: number[] = [];
    const directory = await fetchModel({
      onProgress: ({ doneBytes, totalBytes }) => progress.push(doneBytes / totalBytes),
    });
    assert.deepEqual(await filesIn(directory), NEEDED_FILES);
    for (const name of NEEDED_FILES) {
      assert.ok((await readFile(path.join(directory, name))).equals(hub.files[name] ?? Buffer.alloc(0)), name);
    }
    assert.equal(path.basename(directory), hub.commit);
    assert.equal(progress.at(-1), 1);
    assert.deepEqual(
      progress,
      [...progress].sort((a, b) => a - b),
    );
  });

  it('needs no network the second time, nor for the commit that a branch meant', async () => {
    const first = await fetchModel();
    await hub.stop();
    hub.requests.length = 0;
    assert.equal(await fetchModel(), first);
    assert.equal(hub.requests.length, 0);
  });

  it('knows revisions with a slash, and commits', async () => {
    const directory = await fetchModel({}, { ...MODEL, revision: 'refs/pr/1' });
    const count = hub.requests.length;
    assert.equal(await fetchModel({}, { ...MODEL, revision: hub.commit }), directory);
    assert.equal(hub.requests.length, count);
  });

  it('warns of a branch, naming the commit to pin, and not of a commit', async () => {
    const warnings = () => lines.filter((line) => line.includes('CHECKPOINT_INCOMPATIBLE'));
    await fetchModel({}, { ...MODEL, revision: hub.commit });
    assert.deepEqual(warnings(), []);
    await fetchModel();
    assert.equal(warnings().length, 1);
    assert.ok(warnings()[0]?.includes(`"pinned":"artist/model@${hub.commit}"`), warnings()[0]);
  });

  it('goes on with the files of a download that another process began and that was killed', async () => {
    const directory = path.join(cacheDirectory, 'models/hub--artist--model', hub.commit);
    await mkdir(path.join(directory, 'unet'), { recursive: true });
    await writeFile(path.join(directory, `${UNET}.part`), hub.files[UNET]!.subarray(0, 123_456));
    await fetchModel();
    assert.deepEqual(
      hub.requestsFor(UNET).map(({ range }) => range),
      ['bytes=123456-'],
    );
  });

  it('goes on where a connection broke off', async () => {
    hub.cuts.set(UNET, [100_000, 50_000]);
    const directory = await fetchModel();
    assert.ok((await readFile(path.join(directory, UNET))).equals(hub.files[UNET]!));
    assert.deepEqual(
      hub.requestsFor(UNET).map(({ range }) => range),
      [null, 'bytes=100000-', 'bytes=150000-'],
    );
    assert.equal(lines.filter((line) => line.includes('trying again')).length, 2);
  });

  it('goes on where an earlier process ended', async () => {
    hub.cuts.set(UNET, [100_000]);
    const cancel = new AbortController();
    const onProgress = ({ doneBytes }: { doneBytes: number }) => doneBytes > 200_000 && cancel.abort(new Error('stop'));
    // Text encoder first: 150 kB, then the UNet.
    await assert.rejects(fetchModel({ onProgress, signal: cancel.signal }), /stop|aborted/);
    const textRequests = hub.requestsFor('text_encoder/model.safetensors').length;
    await fetchModel();
    assert.match(hub.requestsFor(UNET).at(-1)?.range ?? '', /^bytes=[1-9]\d*-$/);
    assert.equal(hub.requestsFor('text_encoder/model.safetensors').length, textRequests);
  });

  it('starts a file anew where the server knows no ranges', async () => {
    hub.knowsRanges = false;
    hub.cuts.set(UNET, [300_000]);
    const directory = await fetchModel();
    assert.ok((await readFile(path.join(directory, UNET))).equals(hub.files[UNET]!));
  });

  it('gives up on a server that breaks off at the same byte for ever', async () => {
    hub.knowsRanges = false;
    hub.cuts.set(
      UNET,
      Array.from({ length: 50 }, () => 1000),
    );
    await assert.rejects(fetchModel(), (error) => {
      assert.ok(error instanceof ModelLoadFailedError);
      assert.match(
        error.message,
        /unet\/diffusion_pytorch_model\.safetensors of artist\/model@\w+ .* 6 tries .*--model; of a worker BASE_MODEL/,
      );
      return true;
    });
  });

  it('fetches a file again whose hash is wrong once', async () => {
    hub.wrong.set(UNET, 1);
    const directory = await fetchModel();
    assert.ok((await readFile(path.join(directory, UNET))).equals(hub.files[UNET]!));
  });

  for (const name of [UNET, 'unet/config.json']) {
    it(`refuses ${name} with another hash than announced, and keeps nothing of it`, async () => {
      hub.wrong.set(name, 10);
      await assert.rejects(fetchModel(), (error) => {
        assert.ok(error instanceof ChecksumMismatchError);
        assert.ok(error.message.includes(`${name} of artist/model@`), error.message);
        return true;
      });
      const kept = (await readdir(cacheDirectory, { recursive: true })).filter((file) => file.includes(name));
      assert.deepEqual(kept, []);
    });
  }

  it('waits out a hub that is busy', async () => {
    hub.statuses.push(503, 429, 500);
    await fetchModel();
    assert.equal(hub.statuses.length, 0);
  });

  it('says that a hub could not be reached', async () => {
    await hub.stop();
    await assert.rejects(fetchModel(), (error) => {
      assert.ok(error instanceof ModelLoadFailedError);
      assert.match(error.message, /artist\/model@main could not be fetched .*ECONNREFUSED.*check the network/);
      return true;
    });
  });

  it('sends the token to the hub, and to nobody that it redirects to', async () => {
    hub.token = 'hub-token';
    await fetchModel({ hub: { endpoint: `${hub.endpoint}/`, token: 'hub-token' } });
    assert.deepEqual(new Set(hub.requestsFor(UNET).map(({ authorization }) => authorization)), new Set([null]));
    assert.ok(!lines.join('').includes('hub-token'));
  });

  it('says what to do where a model needs an account', async () => {
    hub.token = 'hub-token';
    await assert.rejects(fetchModel(), /refuses artist\/model@main \(401\): .*set HF_TOKEN/);
    const wrong = { endpoint: hub.endpoint, token: 'other-token' };
    await assert.rejects(fetchModel({ hub: wrong }), /accept its licence/);
  });

  it('says that there is no such model or revision', async () => {
    await assert.rejects(fetchModel({}, { ...MODEL, revision: 'v9' }), /has no artist\/model@v9 \(404\)/);
  });

  for (const listing of ['<html>', 'null', '{}', '{"sha": "main", "siblings": []}']) {
    it(`says that what answers ${listing} is no hub`, async () => {
      hub.listing = listing;
      await assert.rejects(fetchModel(), /is no model hub: check HF_ENDPOINT/);
    });
  }

  it('refuses another kind of model before it fetches any weights', async () => {
    const index = { ...STABLE_DIFFUSION_INDEX, _class_name: 'StableDiffusionXLPipeline', text_encoder_2: ['t', 'C'] };
    hub.files['model_index.json'] = Buffer.from(JSON.stringify(index));
    await assert.rejects(fetchModel(), /artist\/model@\w+ is a StableDiffusionXLPipeline \(it has a text_encoder_2\)/);
    assert.deepEqual(hub.requestsFor(UNET), []);
  });

  it('fetches what was lost from the cache', async () => {
    const directory = await fetchModel();
    await truncate(path.join(directory, UNET), 1000);
    assert.equal(await fetchModel(), directory);
    assert.ok((await readFile(path.join(directory, UNET))).equals(hub.files[UNET]!));
    assert.equal(hub.requestsFor('vae/diffusion_pytorch_model.fp16.safetensors').length, 1);
  });

  it('lets brushwork train take a model by its id', async () => {
    const model = path.join(cacheDirectory, 'tiny');
    await writeRandomBaseModel(loadAddon(), model, 'tiny', 1);
    hub.files = Object.fromEntries(
      await Promise.all(
        (await filesIn(model)).map(async (name) => [name, await readFile(path.join(model, name))] as const),
      ),
    );
    const images = path.join(cacheDirectory, 'images');
    await mkdir(images);
    const picture = sharp({ create: { width: 64, height: 64, channels: 3, background: '#a04010' } });
    await writeFile(path.join(images, 'a.png'), await picture.png().toBuffer());
    const config = path.join(cacheDirectory, 'recipe.json');
    await writeFile(config, JSON.stringify({ epochs: 1, rank: 2, resolution: 64 }));
    const output = path.join(cacheDirectory, 'output');
    const options = ['--model', 'artist/model', '--images', images, '--output', output, '--config', config];
    const { stdout } = await promisify(execFile)(process.execPath, [CLI, 'train', ...options], {
      cwd: cacheDirectory,
      env: { ...process.env, HF_ENDPOINT: hub.endpoint, XDG_CACHE_HOME: path.join(cacheDirectory, 'user') },
    });
    assert.match(stdout, /downloading the base model: 100 % of \d+ MiB\n/);
    const adapter = await readFile(path.join(output, 'peft/adapter_config.json'), 'utf8');
    assert.equal((JSON.parse(adapter) as Record<string, unknown>)['base_model_name_or_path'], 'artist/model');
  }).timeout(60_000);

  it('lets one of two processes fetch, and the other wait', async () => {
    const [first, second] = await Promise.all([fetchModel(), fetchModel()]);
    assert.equal(first, second);
    assert.equal(hub.requestsFor(UNET).length, 1);
  });

  it('takes over from a process that died in the middle', async () => {
    const repository = path.join(cacheDirectory, 'models/hub--artist--model');
    const directory = await fetchModel();
    await rm(directory, { recursive: true });
    const lock = `${path.join(repository, hub.commit)}.lock`;
    await writeFile(lock, 'of a dead process');
    const longAgo = new Date(Date.now() - 60_000);
    await utimes(lock, longAgo, longAgo);
    assert.equal(await fetchModel(), directory);
  });
});
