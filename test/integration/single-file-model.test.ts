import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { goldenModels, toSingleFile, writeSafetensors } from '../support/single-file.ts';
import type { Tensors } from '../support/single-file.ts';
import { writePictures } from './support/pictures.ts';

const CLI = path.join(import.meta.dirname, '../../cli/main.ts');
const WEIGHT_FILES = [
  'kohya.safetensors',
  'lora_weights.safetensors',
  'peft/adapter_config.json',
  'peft/adapter_model.safetensors',
];

/** What weights do not show: numbers of heads and groups, which the tiny model has others of, and the tokenizer. */
const SIDE_FILES = ['unet/config.json', 'vae/config.json', 'text_encoder/config.json', 'tokenizer'];

describe('training on a single-file checkpoint', function () {
  this.timeout(180_000);
  let directory: string;
  let tensors: Tensors;
  const at = (...names: string[]): string => path.join(directory, ...names);

  function brushwork(...args: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
    const kept = Object.entries(process.env).filter(([name]) => !/^(BRUSHWORK_|BASE_MODEL$|LOG_LEVEL$)/.test(name));
    const env = { ...Object.fromEntries(kept), XDG_CACHE_HOME: at('cache') };
    const child = spawn(process.execPath, [CLI, ...args], { cwd: directory, env });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (data) => (stdout += String(data)));
    child.stderr.on('data', (data) => (stderr += String(data)));
    return new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code) => resolve({ code, stdout, stderr }));
    });
  }

  function train(model: string, output: string) {
    const files = ['--model', model, '--images', at('pictures'), '--config', at('config.json')];
    return brushwork('train', ...files, '--output', at(output), '--threads', '1');
  }

  function assertSameWeights(output: string): void {
    for (const file of [...WEIGHT_FILES, 'steps.jsonl']) {
      const [actual, expected] = [output, 'of-directory'].map((name) => readFileSync(at(name, file)));
      assert.ok(actual && expected?.equals(actual), `${file} differs`);
    }
  }

  before(async () => {
    directory = mkdtempSync(path.join(tmpdir(), 'brushwork-single-'));
    await writePictures(at('pictures'));
    const recipe = { seed: 5, rank: 4, alpha: 8, dropout: 0.1, resolution: 64, epochs: 1 };
    writeFileSync(at('config.json'), JSON.stringify(recipe));
    const made = await brushwork('make-base-model', '--preset', 'tiny', '--output', at('model'), '--seed', '3');
    assert.equal(made.code, 0, made.stderr);
    tensors = toSingleFile(at('model'), goldenModels().tiny);
    mkdirSync(at('file'));
    for (const name of SIDE_FILES) cpSync(at('model', name), at('file', name), { recursive: true });
    const trained = await train(at('model'), 'of-directory');
    assert.equal(trained.code, 0, trained.stderr);
  });
  after(() => rmSync(directory, { recursive: true, force: true }));

  it('gives the bytes that training on the directory gives', async () => {
    const position_ids = { dtype: 'I64', shape: [1, 1], bytes: Buffer.alloc(8) };
    const leftover = { dtype: 'F32', shape: [1], bytes: Buffer.alloc(4, 1) };
    writeSafetensors(at('file/model.safetensors'), {
      ...tensors,
      'cond_stage_model.transformer.text_model.embeddings.position_ids': position_ids,
      'model_ema.decay': leftover,
    });
    const { code, stdout, stderr } = await train(at('file/model.safetensors'), 'of-file');
    assert.equal(code, 0, stderr);
    assert.match(stdout, /^converting the base model: 100 % of \d+ MiB$/m);
    assertSameWeights('of-file');
  });

  it('converts once, and leaves nothing else behind', async () => {
    const { code, stdout, stderr } = await train(at('file/model.safetensors'), 'again');
    assert.equal(code, 0, stderr);
    assert.doesNotMatch(stdout, /converting/);
    assertSameWeights('again');
    const [name = '', ...others] = readdirSync(at('cache/brushwork/models'));
    assert.deepEqual(others, []);
    assert.match(name, /^single-file--[0-9a-f]{64}--[0-9a-f]{16}$/);
  });

  it('reads early files, which leave out a level of the text encoder', async () => {
    const renamed = Object.entries(tensors).map(
      ([name, tensor]) => [name.replace('.text_model.', '.'), tensor] as const,
    );
    writeSafetensors(at('file/model.safetensors'), Object.fromEntries(renamed));
    const { code, stderr } = await train(at('file/model.safetensors'), 'of-early-file');
    assert.equal(code, 0, stderr);
    assertSameWeights('of-early-file');
  });

  it('says in one line what a file is that it can not train on', async () => {
    const lora = { dtype: 'F16', shape: [1], bytes: Buffer.alloc(2) };
    writeSafetensors(at('style.safetensors'), { 'lora_unet_mid_block_attentions_0_proj_in.lora_up.weight': lora });
    const { code, stderr } = await train(at('style.safetensors'), 'of-lora');
    assert.equal(code, 1);
    assert.match(stderr, /^MODEL_LOAD_FAILED: The base model style is a LoRA .*: name the base model .*\n$/);
  });
});
