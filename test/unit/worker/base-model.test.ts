import assert from 'node:assert/strict';
import {
  appendFileSync,
  cpSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { CancelledError, ModelLoadFailedError } from '../../../common/errors.ts';
import { NEEDED_FILES, STABLE_DIFFUSION_INDEX, writeFiles } from '../../support/model-layout.ts';
import { baseModelSceneForEachTest } from './support/base-model.ts';
import type { BaseModelScene } from './support/base-model.ts';

describe('resolveBaseModel', () => {
  let directory: string;
  let model: string;
  let resolve: BaseModelScene['resolve'];

  baseModelSceneForEachTest((scene) => ({ directory, model, resolve } = scene));

  const putIndex = (changes: object, dropped?: string) => {
    const index: Record<string, unknown> = { ...STABLE_DIFFUSION_INDEX, ...changes };
    if (dropped !== undefined) delete index[dropped];
    writeFileSync(path.join(model, 'model_index.json'), JSON.stringify(index));
  };

  describe('of a directory', () => {
    it('names it by its folder', async () => {
      const found = await resolve(model);
      assert.deepEqual([found.directory, found.name], [model, 'my-model']);
      assert.match(found.fingerprint, /^[0-9a-f]{64}$/);
    });

    it('tells what sides of pictures must be multiples of', async () => {
      assert.equal((await resolve(model)).sideMultiplePx, 64);
      const twoLevels = JSON.stringify({ in_channels: 4, block_out_channels: [32, 64] });
      writeFileSync(path.join(model, 'unet/config.json'), twoLevels);
      assert.equal((await resolve(model)).sideMultiplePx, 16);
      writeFileSync(path.join(model, 'vae/config.json'), JSON.stringify({ block_out_channels: [32, 32] }));
      assert.equal((await resolve(model)).sideMultiplePx, 4);
    });

    it("names one in a cache of the hub's tools by its id", async () => {
      const snapshot = path.join(directory, 'hub/models--artist--my-model/snapshots/0123abcd');
      mkdirSync(path.dirname(snapshot), { recursive: true });
      symlinkSync(model, snapshot);
      assert.equal((await resolve(snapshot)).name, 'artist/my-model');
    });

    it('gives a copy elsewhere the same fingerprint, whatever else lies there', async () => {
      const copy = path.join(directory, 'copy');
      for (const file of NEEDED_FILES) cpSync(path.join(model, file), path.join(copy, file));
      assert.equal((await resolve(copy)).fingerprint, (await resolve(model)).fingerprint);
    });

    for (const file of NEEDED_FILES.filter((name) => name !== 'model_index.json')) {
      it(`gives another fingerprint when ${file} changes`, async () => {
        const { fingerprint } = await resolve(model);
        appendFileSync(path.join(model, file), ' ');
        assert.notEqual((await resolve(model)).fingerprint, fingerprint);
      });
    }

    it('takes shards, all of them', async () => {
      const file = path.join(model, 'text_encoder/model.safetensors');
      const whole = readFileSync(file);
      rmSync(file);
      writeFileSync(path.join(model, 'text_encoder/model-00001-of-00002.safetensors'), whole.subarray(0, 1000));
      await assert.rejects(resolve(model), /lacks text_encoder\/model\.safetensors/);
      writeFileSync(path.join(model, 'text_encoder/model-00002-of-00002.safetensors'), whole.subarray(1000));
      const { fingerprint } = await resolve(model);
      appendFileSync(path.join(model, 'text_encoder/model-00002-of-00002.safetensors'), ' ');
      assert.notEqual((await resolve(model)).fingerprint, fingerprint);
    });

    it('notices a file of the same length and time', async () => {
      const file = path.join(model, 'unet/diffusion_pytorch_model.safetensors');
      const time = new Date('2026-01-01T00:00:00Z');
      utimesSync(file, time, time);
      const { fingerprint } = await resolve(model);
      writeFileSync(file, Buffer.alloc(400_000, 'other'));
      utimesSync(file, time, time);
      assert.notEqual((await resolve(model)).fingerprint, fingerprint);
    });

    it('takes hashes from the cache, and lives without one', async () => {
      const { fingerprint } = await resolve(model);
      const hashes = path.join(directory, 'cache/model-hashes');
      const [name = ''] = readdirSync(hashes);
      const cached = readFileSync(path.join(hashes, name), 'utf8');
      writeFileSync(
        path.join(hashes, name),
        cached.replaceAll(/"sha256":"[0-9a-f]{64}"/g, '"sha256":"from the cache"'),
      );
      assert.notEqual((await resolve(model)).fingerprint, fingerprint);
      writeFileSync(path.join(hashes, name), cached.slice(0, 100));
      assert.equal((await resolve(model)).fingerprint, fingerprint);
    });

    it("ends with the signal's reason", async () => {
      const reason = new CancelledError('called off');
      await assert.rejects(resolve(model, { signal: AbortSignal.abort(reason) }), reason);
    });
  });

  describe('refuses', () => {
    const refuses = async (words: RegExp, source = model) => {
      await assert.rejects(resolve(source), (error) => {
        assert.ok(error instanceof ModelLoadFailedError);
        assert.match(error.message, words);
        assert.ok(!error.message.includes('\n'));
        return true;
      });
    };

    it('other kinds of model, naming what was found', async () => {
      putIndex({
        _class_name: 'StableDiffusionXLPipeline',
        text_encoder_2: ['transformers', 'CLIPTextModelWithProjection'],
      });
      await refuses(/is a StableDiffusionXLPipeline \(it has a text_encoder_2\)\. .*Stable Diffusion 1\.x/);
      putIndex({ _class_name: 'FluxPipeline', transformer: ['diffusers', 'FluxTransformer2DModel'] }, 'unet');
      await refuses(/is a FluxPipeline \(no unet, it has a transformer\)/);
      putIndex({ vae: ['diffusers', 'AutoencoderTiny'] });
      await refuses(/is a StableDiffusionPipeline \(vae is a AutoencoderTiny\)/);
      putIndex({ unet: [null, null] });
      await refuses(/no unet/);
    });

    it('what has the classes of 1.x but another unet', async () => {
      const putUnet = (text: string) => writeFileSync(path.join(model, 'unet/config.json'), text);
      putUnet('{"in_channels": 4, "use_linear_projection": true}');
      await refuses(/is a Stable Diffusion 2\.x \(its unet has linear projections\)\. Brushwork trains/);
      putUnet('{"in_channels": 9}');
      await refuses(/is for in-painting or editing \(its unet takes 9 channels instead of 4\): take the plain one/);
      putUnet('{"in_channels": ');
      await refuses(/unet\/config\.json .* not valid JSON/);
      putUnet('{}');
      await resolve(model);
    });

    it('one whose index is no JSON object', async () => {
      for (const text of ['{', '[]', 'null']) {
        writeFileSync(path.join(model, 'model_index.json'), text);
        await refuses(/model_index\.json .* not (valid JSON|a JSON object)/);
      }
    });

    it('one that is incomplete, naming all that is missing', async () => {
      rmSync(path.join(model, 'unet/config.json'));
      rmSync(path.join(model, 'tokenizer'), { recursive: true });
      rmSync(path.join(model, 'vae/diffusion_pytorch_model.fp16.safetensors'));
      await refuses(
        /lacks unet\/config\.json, vae\/diffusion_pytorch_model\.safetensors, tokenizer\/vocab\.json, tokenizer\/merges\.txt/,
      );
    });

    it('one that has .bin weights only', async () => {
      rmSync(path.join(model, 'unet/diffusion_pytorch_model.safetensors'));
      rmSync(path.join(model, 'unet/diffusion_pytorch_model.fp16.safetensors'));
      await refuses(
        /lacks unet\/diffusion_pytorch_model\.safetensors\. It has \.bin weights, which are PyTorch pickles: loading one may run any code .* Take a \.safetensors version/,
      );
    });

    it('a folder with a single-file checkpoint, saying how to name it', async () => {
      writeFiles(path.join(directory, 'pickle'), { 'model.ckpt': Buffer.from('x') });
      await refuses(
        /single file \(model\.ckpt\), which may run code .*: take a \.safetensors/,
        path.join(directory, 'pickle'),
      );
      writeFiles(path.join(directory, 'single'), { 'model.safetensors': Buffer.from('x') });
      await refuses(/single file \(model\.safetensors\), .*: name the file itself/, path.join(directory, 'single'));
    });

    it('pickles, wherever they lie, saying why and what to do', async () => {
      writeFiles(directory, { 'model.ckpt': Buffer.from('x') });
      for (const source of [path.join(directory, 'model.ckpt'), 's3://bucket/model.pt', 'artist/model/model.bin']) {
        await refuses(
          /is a PyTorch pickle: loading one may run any code .* convert it: safetensors\.torch\.save_file/,
          source,
        );
      }
    });

    it('what is neither directory, nor id, nor bucket', async () => {
      for (const source of [path.join(directory, 'none'), 'name', 'https://example.com/x', '', '../x/y']) {
        await refuses(/is not here: name a directory .* a hub id .* s3:\/\/bucket\/prefix/, source);
      }
    });

    it('a file that is not there, which is no hub id', async () => {
      for (const source of ['gone.safetensors', 'models/gone.safetensors', path.join(directory, 'gone.safetensors')]) {
        await refuses(/There is no file ".*gone\.safetensors": check the path/, source);
      }
    });

    it('a bucket where no store is configured', async () => {
      await refuses(/needs the settings of a store/, 's3://bucket/model');
    });
  });
});
