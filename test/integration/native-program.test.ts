import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const PROGRAM = path.join(import.meta.dirname, '../../build/brushwork-native');

interface Step {
  step: number;
  loss: number;
  learning_rate: number;
}

describe('the plain program', function () {
  let directory: string;
  let model: string;

  const run = async (...words: string[]): Promise<string> =>
    (await promisify(execFile)(PROGRAM, words, { env: { ...process.env, OMP_NUM_THREADS: '1' } })).stdout;

  /** Trains two pictures of 64 px, and returns the lines about steps and the weights. */
  async function train(name: string, ...options: string[]): Promise<{ steps: Step[]; weights: Buffer }> {
    const output = path.join(directory, name);
    const sizes = ['--size', '64', '--images', '2', '--rank', '2', '--epochs', '2', '--device', 'cpu'];
    const lines = await run('train-synthetic', '--model', model, '--output', output, ...sizes, ...options);
    const objects = lines
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as Step);
    return { steps: objects.slice(0, -1), weights: readFileSync(path.join(output, 'lora_weights.safetensors')) };
  }

  before(async () => {
    directory = mkdtempSync(path.join(tmpdir(), 'brushwork-native-'));
    model = path.join(directory, 'model');
    await run('make-base-model', '--directory', model, '--preset', 'tiny');
  });

  after(() => rmSync(directory, { recursive: true }));

  it('trains with every option of the recipe', async () => {
    const plain = await train('plain');
    assert.deepEqual(
      plain.steps.map((step) => step.learning_rate),
      [1e-4, 1e-4, 1e-4, 1e-4],
    );
    const schedule = await train('linear', '--lr-scheduler', 'linear', '--lr-warmup-steps', '2');
    assert.deepEqual(
      schedule.steps.map((step) => step.learning_rate),
      [0, 5e-5, 1e-4, 5e-5],
    );
    const options: Record<string, string> = {
      optimizer: 'lion',
      'weight-decay': '0.5',
      'max-grad-norm': '0.001',
      'min-snr-gamma': '0.1',
      'noise-offset': '0.1',
      'ema-decay': '0.5',
      flip: '1',
      'caption-dropout': '0.9',
    };
    for (const [name, value] of Object.entries(options)) {
      const { weights } = await train(name, `--${name}`, value);
      assert.ok(!weights.equals(plain.weights), `--${name} changes nothing`);
    }
    const checkpointing = await train('checkpointing', '--gradient-checkpointing', '1');
    assert.ok(checkpointing.weights.equals(plain.weights));
  });

  it('times no more steps than there are', async () => {
    const bench = (...options: string[]) =>
      run('bench', '--model', model, '--size', '64', '--images', '2', '--device', 'cpu', '--epochs', '2', ...options);
    const report = JSON.parse(await bench('--warmup', '1')) as { steps: number };
    assert.equal(report.steps, 3);
    await assert.rejects(bench('--warmup', '4'), /--epochs ends the training before the steps of --warmup are over/);
  });

  it('names the option and the values that it knows', async () => {
    await assert.rejects(
      train('bad', '--optimizer', 'sgd'),
      /--optimizer must be one of adamw, lion, prodigy, not sgd/,
    );
    await assert.rejects(train('bad', '--flip', 'yes'), /--flip must be one of 0, 1, not yes/);
    await assert.rejects(train('bad', '--gradients', path.join(directory, 'g')), /--gradients needs --accumulation/);
    await assert.rejects(train('bad', '--flips', '1'), /--flips is no option of this command/);
  });

  it('predicts with a LoRA that it has exported', async () => {
    const gradients = path.join(directory, 'gradients.safetensors');
    await train('for-forward', '--accumulation', '2', '--gradients', gradients, '--learning-rate', '0.01');
    assert.match(readFileSync(gradients).toString('latin1'), /mid_block\.[^"]*to_out\.0\.lora_B\.weight/);
    const inputs = path.join(directory, 'inputs.safetensors');
    writeInputs(inputs);
    const predict = async (name: string, ...options: string[]) => {
      const output = path.join(directory, name);
      const files = ['--inputs', inputs, '--output', output];
      const report = await run('forward', '--model', model, '--device', 'cpu', ...files, ...options);
      assert.deepEqual(Object.keys((JSON.parse(report) as { seconds: object }).seconds), ['unet']);
      return readFileSync(output);
    };
    const plain = await predict('plain.safetensors');
    assert.ok(plain.equals(await predict('again.safetensors')));
    const style = path.join(directory, 'for-forward');
    const peft = await predict('peft.safetensors', '--lora', path.join(style, 'peft'));
    assert.ok(!plain.equals(peft));
    // alpha / rank is a power of two, so that folding it into B loses nothing.
    const kohya = await predict('kohya.safetensors', '--lora', path.join(style, 'kohya.safetensors'));
    assert.ok(kohya.equals(peft));
  });
});

/** Inputs of the tiny model's UNet, as a safetensors file. */
function writeInputs(file: string): void {
  const wave = (count: number) => Float32Array.from({ length: count }, (_, i) => Math.sin(i));
  const parts = [
    { name: 'timesteps', dtype: 'I64', shape: [1], values: BigInt64Array.of(500n) },
    { name: 'sample', dtype: 'F32', shape: [1, 4, 8, 8], values: wave(4 * 8 * 8) },
    { name: 'text', dtype: 'F32', shape: [1, 77, 32], values: wave(77 * 32) },
  ];
  const header: Record<string, object> = {};
  let end = 0;
  for (const { name, dtype, shape, values } of parts) {
    header[name] = { dtype, shape, data_offsets: [end, end + values.byteLength] };
    end += values.byteLength;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const bytes = parts.map(({ values }) => Buffer.from(values.buffer));
  writeFileSync(file, Buffer.concat([length, text, ...bytes]));
}
