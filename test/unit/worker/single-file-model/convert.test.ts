import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pino } from 'pino';
import { CancelledError, ModelLoadFailedError } from '../../../../common/errors.ts';
import type { ModelProgress } from '../../../../worker/model-download.ts';
import { convertSingleFile } from '../../../../worker/single-file-model/convert.ts';
import type { ConvertOptions } from '../../../../worker/single-file-model/convert.ts';
import { writeFiles } from '../../../support/model-layout.ts';
import {
  goldenKeys,
  goldenModels,
  readSafetensors,
  singleFileTensors,
  tinySingleFile,
  writeSafetensors,
} from '../../../support/single-file.ts';
import type { Part, Tensor, Tensors } from '../../../support/single-file.ts';

const { tiny } = goldenModels();
const WEIGHTS: Record<Part, string> = {
  unet: 'unet/diffusion_pytorch_model.safetensors',
  vae: 'vae/diffusion_pytorch_model.safetensors',
  text_encoder: 'text_encoder/model.safetensors',
};
const UNET = 'model.diffusion_model';
const NORM = `${UNET}.out.0.weight`;

const numbers = (dtype: string, ...shape: number[]): Tensor => {
  const itemBytes = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, F8_E4M3: 1 }[dtype] ?? 1;
  return {
    dtype,
    shape,
    bytes: Buffer.alloc(
      shape.reduce((total, side) => total * side, itemBytes),
      dtype,
    ),
  };
};

describe('convertSingleFile', () => {
  let directory: string;
  let file: string;
  let tensors: Tensors;
  const at = (...names: string[]) => path.join(directory, ...names);
  const models = () => readdirSync(at('cache/models')).sort();

  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'brushwork-convert-'));
    file = at('folder/style.safetensors');
    tensors = singleFileTensors(tiny);
    writeFiles(at('folder'), tinySingleFile());
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  function writeSide(name: string, content: object): void {
    mkdirSync(path.dirname(at('folder', name)), { recursive: true });
    writeFileSync(at('folder', name), JSON.stringify(content));
  }

  const convert = (changes: Partial<ConvertOptions> = {}) =>
    convertSingleFile(file, 'style', {
      cacheDirectory: at('cache'),
      logger: pino({ level: 'silent' }),
      signal: new AbortController().signal,
      ...changes,
    });

  const refuses = async (words: RegExp) => {
    await assert.rejects(convert(), (error) => {
      assert.ok(error instanceof ModelLoadFailedError, String(error));
      assert.match(error.message, words);
      assert.ok(!error.message.includes('\n'));
      return true;
    });
    assert.deepEqual(existsSync(at('cache/models')) ? models() : [], []);
  };

  function assertEqualTensors(converted: string, from: Tensors): void {
    for (const [part, name] of Object.entries(WEIGHTS) as [Part, string][]) {
      const found = readSafetensors(path.join(converted, name));
      const keys = goldenKeys(tiny, part);
      assert.deepEqual(Object.keys(found).sort(), keys.map(([, diffusers]) => diffusers).sort());
      for (const [ldm, diffusers, shape] of keys) {
        assert.deepEqual(found[diffusers]?.shape, shape, diffusers);
        assert.equal(found[diffusers]?.dtype, from[ldm]?.dtype, diffusers);
        assert.ok(found[diffusers]?.bytes.equals(from[ldm]?.bytes ?? Buffer.of()), diffusers);
      }
    }
  }

  it('gives every weight its name and shape, and keeps type and bytes', async () => {
    assertEqualTensors(await convert(), tensors);
  });

  it('takes types as they are, also several in one file, and lets every number begin at a multiple of its size', async () => {
    const half = 'first_stage_model.decoder.conv_out.bias';
    tensors = { odd: numbers('I8', 3), ...singleFileTensors(tiny, 'F32'), [half]: numbers('F16', 3) };
    writeSafetensors(file, tensors);
    const converted = await convert();
    assertEqualTensors(converted, tensors);
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
    writeSafetensors(file, {
      'model_ema.decay': numbers('F32', 1),
      'model_ema.diffusion_modelout0weight': numbers('F32', 32),
      betas: numbers('F32', 1000),
      'cond_stage_model.transformer.text_model.embeddings.position_ids': numbers('I64', 1, 77),
      'cond_stage_model.logit_scale': numbers('F32'),
      'first_stage_model.loss.logvar': numbers('F32'),
      ...tensors,
    });
    assertEqualTensors(await convert(), tensors);
  });

  it('describes the model as its weights and the files beside it do', async () => {
    const converted = await convert();
    const json = (name: string) => JSON.parse(readFileSync(path.join(converted, name), 'utf8')) as object;
    assert.deepEqual(json('unet/config.json'), {
      ...json('unet/config.json'),
      ...tiny.sizes.unet,
      _class_name: 'UNet2DConditionModel',
    });
    assert.deepEqual(json('vae/config.json'), {
      ...json('vae/config.json'),
      ...tiny.sizes.vae,
      scaling_factor: 0.18215,
    });
    const text = { ...tiny.sizes.text_encoder, num_attention_heads: 4, hidden_act: 'quick_gelu' };
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
    ['its metadata', () => writeSafetensors(file, tensors, { 'modelspec.prediction_type': 'v' })],
    ['an empty tensor', () => writeSafetensors(file, { v_pred: numbers('F32', 0), ...tensors })],
    [
      'the scheduler beside it',
      () => writeSide('scheduler/scheduler_config.json', { prediction_type: 'v_prediction' }),
    ],
  ] as const) {
    it(`knows by ${mark} that a model predicts v`, async () => {
      write();
      const scheduler = readFileSync(path.join(await convert(), 'scheduler/scheduler_config.json'), 'utf8');
      assert.equal((JSON.parse(scheduler) as Record<string, unknown>)['prediction_type'], 'v_prediction');
    });
  }

  it('names the directory by the hash of the file, and uses it again wherever the file lies', async () => {
    const converted = await convert();
    const sha256 = createHash('sha256').update(readFileSync(file)).digest('hex');
    assert.match(path.basename(converted), new RegExp(`^single-file--${sha256}--[0-9a-f]{16}$`));
    const { mtimeMs, ino } = statSync(path.join(converted, WEIGHTS.unet));
    const copy = at('folder/copy.safetensors');
    writeSafetensors(copy, tensors);
    file = copy;
    assert.equal(await convert(), converted);
    const again = statSync(path.join(converted, WEIGHTS.unet));
    assert.deepEqual([again.mtimeMs, again.ino], [mtimeMs, ino]);
  });

  it('makes another directory when the file or what lies beside it changes', async () => {
    const first = await convert();
    writeSide('tokenizer/vocab.json', { b: 0 });
    const second = await convert();
    tensors[NORM] = numbers('F16', 32);
    writeSafetensors(file, tensors);
    assert.equal(new Set([first, second, await convert()]).size, 3);
  });

  it('converts once for callers at the same time, and tells how far it is', async () => {
    const reports: ModelProgress[] = [];
    const [first, second] = await Promise.all([
      convert({ onProgress: (progress) => reports.push({ ...progress }) }),
      convert({ onProgress: (progress) => reports.push({ ...progress }) }),
    ]);
    assert.equal(first, second);
    assert.deepEqual(models(), [path.basename(first)]);
    const { activity, doneBytes, totalBytes } = reports.at(-1) ?? { doneBytes: 0, totalBytes: 1 };
    assert.deepEqual([activity, doneBytes], ['converting', totalBytes]);
    assert.equal(reports.filter((report) => report.doneBytes === totalBytes).length, 1);
  });

  it('leaves nothing when it is stopped, and removes what a killed process left', async () => {
    const stop = new AbortController();
    const reason = new CancelledError('called off');
    await assert.rejects(convert({ signal: stop.signal, onProgress: () => stop.abort(reason) }), reason);
    assert.deepEqual(models(), []);
    const converted = await convert();
    rmSync(converted, { recursive: true });
    mkdirSync(`${converted}.0123.part/unet`, { recursive: true });
    await convert();
    assert.deepEqual(models(), [path.basename(converted)]);
  });

  it('converts again when the directory lost a part', async () => {
    const converted = await convert();
    truncateSync(path.join(converted, WEIGHTS.vae), 1000);
    assert.equal(await convert(), converted);
    assertEqualTensors(converted, tensors);
  });

  describe('refuses', () => {
    it('a file whose weights are not all there, naming some', async () => {
      delete tensors[NORM];
      for (const name of Object.keys(tensors)) if (name.startsWith(`${UNET}.middle_block.0.`)) delete tensors[name];
      writeSafetensors(file, tensors);
      await refuses(
        /^The base model style lacks model\.diffusion_model\.middle_block\.0\.in_layers\.0\.weight, .* and 7 more\. It is damaged or of another architecture/,
      );
    });

    it('a file with weights that the architecture does not have', async () => {
      writeSafetensors(file, { [`${UNET}.output_blocks.3.3.conv.weight`]: numbers('F16', 1), ...tensors });
      await refuses(
        /holds what Stable Diffusion 1\.x does not have: model\.diffusion_model\.output_blocks\.3\.3\.conv\.weight\./,
      );
    });

    it('weights of another shape or of a type that is not trained on', async () => {
      tensors[NORM] = numbers('F16', 31);
      writeSafetensors(file, tensors);
      await refuses(/type or shape that does not fit: model\.diffusion_model\.out\.0\.weight \(F16 31 instead of 32\)/);
      tensors[NORM] = numbers('F8_E4M3', 32);
      writeSafetensors(file, tensors);
      await refuses(/out\.0\.weight \(F8_E4M3 32 instead of 32\)/);
    });

    it('sizes whose heads and groups nobody can know', async () => {
      for (const name of ['unet', 'vae', 'text_encoder']) rmSync(at('folder', name), { recursive: true });
      await refuses(
        /other sizes than Stable Diffusion 1\.x, .*its vae has widths of 8, 16, 16, which are not 32 groups.*: put its unet\/config\.json, .* beside the file/,
      );
    });

    it('a configuration beside it that is of another model', async () => {
      writeSide('unet/config.json', { block_out_channels: [320, 640] });
      await refuses(
        /unet\/config\.json beside the base model style says block_out_channels \[320,640\], but its weights have \[32,64\]/,
      );
      writeFileSync(at('folder/unet/config.json'), '{');
      await refuses(/unet\/config\.json is not valid JSON/);
    });

    it('a vocabulary that is not that of CLIP, where there is no tokenizer', async () => {
      rmSync(at('folder/tokenizer/merges.txt'));
      await refuses(
        /knows 1024 tokens, CLIP's tokenizer 49408: put the model's tokenizer\/vocab\.json and .* beside the file/,
      );
    });

    it('a file that was cut off, and one that is damaged', async () => {
      const whole = readFileSync(file);
      truncateSync(file, whole.length - 100);
      await refuses(
        new RegExp(`was cut off: it has ${whole.length - 100} bytes and needs ${whole.length}\\. Get it again`),
      );
      truncateSync(file, 1000);
      await refuses(/was cut off: it has 1000 bytes/);
      truncateSync(file, 5);
      await refuses(/is no safetensors file/);
      whole.writeUInt8(0x2b, 8);
      writeFileSync(file, whole);
      await refuses(/is no safetensors file, or a damaged one/);
      const { bytes, ...entry } = numbers('F16', 4);
      writeSafetensors(file, { ...tensors, [NORM]: { ...entry, bytes: bytes.subarray(0, 6) } });
      await refuses(/gives 6 bytes to "model\.diffusion_model\.out\.0\.weight", but its shape needs 8/);
    });

    it('what only bears the name of a safetensors file', async () => {
      for (const [content, words] of [
        [
          Buffer.from('PK\x03\x04 and then some bytes of a zip archive'),
          /PyTorch pickle under another name: .*may run any code/,
        ],
        [Buffer.from([0x80, 2, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9]), /PyTorch pickle under another name/],
        [Buffer.from('version https://git-lfs.github.com/spec/v1\noid sha256:0\n'), /pointer of Git LFS/],
        [Buffer.from('<!DOCTYPE html><html>Log in</html>'), /is a web page/],
        [Buffer.alloc(200, 0xff), /is no safetensors file/],
      ] as const) {
        writeFileSync(file, content);
        await refuses(words);
      }
    });

    it('a file that somebody writes to meanwhile', async () => {
      const onProgress = () => appendFileSync(file, ' ');
      await assert.rejects(convert({ onProgress }), /changed while it was read: start again/);
      assert.deepEqual(models(), []);
    });
  });
});
