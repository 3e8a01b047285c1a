import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, statSync, truncateSync } from 'node:fs';
import path from 'node:path';
import { CancelledError } from '../../../../common/errors.ts';
import type { ModelProgress } from '../../../../worker/model-download.ts';
import { goldenKeys, readSafetensors, singleFileTensors, writeSafetensors } from '../../../support/single-file.ts';
import type { Part, Tensors } from '../../../support/single-file.ts';
import { ConversionScene, NORM, TINY, numbers } from './support/conversion.ts';

const WEIGHTS: Record<Part, string> = {
  unet: 'unet/diffusion_pytorch_model.safetensors',
  vae: 'vae/diffusion_pytorch_model.safetensors',
  text_encoder: 'text_encoder/model.safetensors',
};

describe('convertSingleFile', () => {
  let scene: ConversionScene;

  beforeEach(() => {
    scene = new ConversionScene();
  });
  afterEach(() => scene.remove());

  function assertEqualTensors(converted: string, from: Tensors): void {
    for (const [part, name] of Object.entries(WEIGHTS) as [Part, string][]) {
      const found = readSafetensors(path.join(converted, name));
      const keys = goldenKeys(TINY, part);
      assert.deepEqual(Object.keys(found).sort(), keys.map(([, diffusers]) => diffusers).sort());
      for (const [ldm, diffusers, shape] of keys) {
        assert.deepEqual(found[diffusers]?.shape, shape, diffusers);
        assert.equal(found[diffusers]?.dtype, from[ldm]?.dtype, diffusers);
        assert.ok(found[diffusers]?.bytes.equals(from[ldm]?.bytes ?? Buffer.of()), diffusers);
      }
    }
  }

  it('gives every weight its name and shape, and keeps type and bytes', async () => {
    assertEqualTensors(await scene.convert(), scene.tensors);
  });

  it('takes types as they are, also several in one file, and lets every number begin at a multiple of its size', async () => {
    const half = 'first_stage_model.decoder.conv_out.bias';
    scene.tensors = { odd: numbers('I8', 3), ...singleFileTensors(TINY, 'F32'), [half]: numbers('F16', 3) };
    writeSafetensors(scene.file, scene.tensors);
    const converted = await scene.convert();
    assertEqualTensors(converted, scene.tensors);
    for (const name of Object.values(WEIGHTS)) {
      const content = readFileSync(path.join(converted, name));
      const dataStart = 8 + Number(content.readBigUInt64LE(0));
      assert.equal(dataStart % 8, 0, name);
      const header = JSON.parse(content.toString('utf8', 8, dataStart)) as Record<string, { data_offsets?: number[] }>;
      for (const [key, { data_offsets: [begin = 0] = [] }] of Object.entries(header)) {
        assert.equal(begin % (key === 'decoder.conv_out.bias' ? 2 : 4), 0, key);
      }
    }
  });

  it('leaves out what training left behind', async () => {
    writeSafetensors(scene.file, {
      'model_ema.decay': numbers('F32', 1),
      'model_ema.diffusion_modelout0weight': numbers('F32', 32),
      betas: numbers('F32', 1000),
      'cond_stage_model.transformer.text_model.embeddings.position_ids': numbers('I64', 1, 77),
      'cond_stage_model.logit_scale': numbers('F32'),
      'first_stage_model.loss.logvar': numbers('F32'),
      ...scene.tensors,
    });
    assertEqualTensors(await scene.convert(), scene.tensors);
  });

  it('describes the model as its weights and the files beside it do', async () => {
    const converted = await scene.convert();
    const json = (name: string) => JSON.parse(readFileSync(path.join(converted, name), 'utf8')) as object;
    assert.deepEqual(json('unet/config.json'), {
      ...json('unet/config.json'),
      ...TINY.sizes.unet,
      _class_name: 'UNet2DConditionModel',
    });
    assert.deepEqual(json('vae/config.json'), {
      ...json('vae/config.json'),
      ...TINY.sizes.vae,
      scaling_factor: 0.18215,
    });
    const text = { ...TINY.sizes.text_encoder, num_attention_heads: 4, hidden_act: 'quick_gelu' };
    assert.deepEqual(json('text_encoder/config.json'), { ...json('text_encoder/config.json'), ...text });
    assert.equal(readFileSync(path.join(converted, 'tokenizer/vocab.json'), 'utf8'), '{"a":0}');
    assert.deepEqual(json('scheduler/scheduler_config.json'), {
      _class_name: 'PNDMScheduler',
      beta_end: 0.012,
      beta_schedule: 'scaled_linear',
      beta_start: 0.00085,
      clip_sample: false,
      num_train_timesteps: 1000,
      prediction_type: 'epsilon',
      set_alpha_to_one: false,
      skip_prk_steps: true,
      steps_offset: 1,
    });
  });

  for (const [mark, write] of [
    ['its metadata', () => writeSafetensors(scene.file, scene.tensors, { 'modelspec.prediction_type': 'v' })],
    ['an empty tensor', () => writeSafetensors(scene.file, { v_pred: numbers('F32', 0), ...scene.tensors })],
    [
      'the scheduler beside it',
      () => scene.writeSide('scheduler/scheduler_config.json', { prediction_type: 'v_prediction' }),
    ],
  ] as const) {
    it(`knows by ${mark} that a model predicts v`, async () => {
      write();
      const scheduler = readFileSync(path.join(await scene.convert(), 'scheduler/scheduler_config.json'), 'utf8');
      assert.equal((JSON.parse(scheduler) as Record<string, unknown>)['prediction_type'], 'v_prediction');
    });
  }

  it('names the directory by the hash of the file, and uses it again wherever the file lies', async () => {
    const converted = await scene.convert();
    const sha256 = createHash('sha256').update(readFileSync(scene.file)).digest('hex');
    assert.match(path.basename(converted), new RegExp(`^single-file--${sha256}--[0-9a-f]{16}$`));
    const { mtimeMs, ino } = statSync(path.join(converted, WEIGHTS.unet));
    const copy = scene.at('folder/copy.safetensors');
    writeSafetensors(copy, scene.tensors);
    scene.file = copy;
    assert.equal(await scene.convert(), converted);
    const again = statSync(path.join(converted, WEIGHTS.unet));
    assert.deepEqual([again.mtimeMs, again.ino], [mtimeMs, ino]);
  });

  it('makes another directory when the file or what lies beside it changes', async () => {
    const first = await scene.convert();
    scene.writeSide('tokenizer/vocab.json', { b: 0 });
    const second = await scene.convert();
    scene.tensors[NORM] = numbers('F16', 32);
    writeSafetensors(scene.file, scene.tensors);
    assert.equal(new Set([first, second, await scene.convert()]).size, 3);
  });

  it('converts once for callers at the same time, and tells how far it is', async () => {
    const reports: ModelProgress[] = [];
    const [first, second] = await Promise.all([
      scene.convert({ onProgress: (progress) => reports.push({ ...progress }) }),
      scene.convert({ onProgress: (progress) => reports.push({ ...progress }) }),
    ]);
    assert.equal(first, second);
    assert.deepEqual(scene.models(), [path.basename(first)]);
    const { activity, doneBytes, totalBytes } = reports.at(-1) ?? { doneBytes: 0, totalBytes: 1 };
    assert.deepEqual([activity, doneBytes], ['converting', totalBytes]);
    assert.equal(reports.filter((report) => report.doneBytes === totalBytes).length, 1);
  });

  it('leaves nothing when it is stopped, and removes what a killed process left', async () => {
    const stop = new AbortController();
    const reason = new CancelledError('called off');
    await assert.rejects(scene.convert({ signal: stop.signal, onProgress: () => stop.abort(reason) }), reason);
    assert.deepEqual(scene.models(), []);
    const converted = await scene.convert();
    rmSync(converted, { recursive: true });
    mkdirSync(`${converted}.0123.part/unet`, { recursive: true });
    await scene.convert();
    assert.deepEqual(scene.models(), [path.basename(converted)]);
  });

  it('converts again when the directory lost a part', async () => {
    const converted = await scene.convert();
    truncateSync(path.join(converted, WEIGHTS.vae), 1000);
    assert.equal(await scene.convert(), converted);
    assertEqualTensors(converted, scene.tensors);
  });
});
