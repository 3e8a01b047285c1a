import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import sharp from 'sharp';
import { PICTURE_COUNT, writePictures } from './support/pictures.ts';
import { until } from './support/until.ts';

const CLI = path.join(import.meta.dirname, '../../cli/main.ts');
const EPOCHS = 6;
const STEPS = EPOCHS * PICTURE_COUNT;
const WEIGHT_FILES = [
  'kohya.safetensors',
  'lora_weights.safetensors',
  'peft/adapter_config.json',
  'peft/adapter_model.safetensors',
];

interface Run {
  code: number | null;
  stdout: string;
  stderr: string;
}

function isGroupAlive(groupId: number): boolean {
  try {
    return process.kill(-groupId, 0);
  } catch {
    return false;
  }
}

function flipLastBit(file: string): void {
  const bytes = readFileSync(file);
  bytes.writeUInt8(bytes.readUInt8(bytes.length - 1) ^ 1, bytes.length - 1);
  writeFileSync(file, bytes);
}

describe('brushwork train', function () {
  this.timeout(180_000);
  let directory: string;
  let undisturbed: Run;
  const at = (name: string): string => path.join(directory, name);

  before(async () => {
    directory = mkdtempSync(path.join(tmpdir(), 'brushwork-train-'));
    await writePictures(at('pictures'));
    // Dropout is on: its random stream must survive a resume as well.
    const config = { seed: 5, rank: 4, alpha: 8, dropout: 0.1, resolution: 64, epochs: EPOCHS };
    writeFileSync(at('config.json'), JSON.stringify(config));
    const made = await brushwork('make-base-model', '--preset', 'tiny', '--output', at('model'), '--seed', '3');
    assert.equal(made.code, 0, made.stderr);
    undisturbed = await train('undisturbed');
    assert.equal(undisturbed.code, 0, undisturbed.stderr);
  });
  after(() => rmSync(directory, { recursive: true, force: true }));

  /** Runs the command in a process group of its own; `started` may send it signals. */
  function brushwork(...args: string[]): Promise<Run>;
  function brushwork(started: (groupId: number) => void, ...args: string[]): Promise<Run>;
  function brushwork(first: string | ((groupId: number) => void), ...rest: string[]): Promise<Run> {
    const args = typeof first === 'string' ? [first, ...rest] : rest;
    // What a developer has set for the service must not count here.
    const kept = Object.entries(process.env).filter(([name]) => !/^(BRUSHWORK_|BASE_MODEL$|LOG_LEVEL$)/.test(name));
    const env = { ...Object.fromEntries(kept), XDG_CACHE_HOME: at('cache') };
    const child = spawn(process.execPath, [CLI, ...args], { cwd: directory, env, detached: true });
    const run: Run = { code: null, stdout: '', stderr: '' };
    child.stdout.on('data', (data) => (run.stdout += String(data)));
    child.stderr.on('data', (data) => (run.stderr += String(data)));
    if (typeof first !== 'string' && child.pid !== undefined) first(child.pid);
    return new Promise((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code) => resolve({ ...run, code }));
    });
  }

  const optionsFor = (output: string): string[] => [
    ...['train', '--model', at('model'), '--images', at('pictures'), '--config', at('config.json')],
    ...['--output', at(output), '--threads', '1'],
  ];

  function train(output: string, ...more: string[]): Promise<Run> {
    return brushwork(...optionsFor(output), ...more);
  }

  function stepsOf(output: string): Record<string, unknown>[] {
    const text = readFileSync(path.join(at(output), 'steps.jsonl'), 'utf8');
    assert.ok(text.endsWith('\n'));
    return text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
  }

  function assertEqualFiles(output: string): void {
    for (const file of [...WEIGHT_FILES, 'steps.jsonl', 'loss.png']) {
      const [actual, expected] = [output, 'undisturbed'].map((name) => readFileSync(path.join(at(name), file)));
      assert.ok(actual && expected?.equals(actual), `${file} differs`);
    }
  }

  it('leaves the weights in three formats, the steps and the loss curve, and says where', async () => {
    const files = readdirSync(at('undisturbed'), { recursive: true }).map(String);
    assert.deepEqual(files.sort(), [...WEIGHT_FILES, 'loss.png', 'peft', 'steps.jsonl'].sort());
    assert.match(undisturbed.stdout, /^weights: .*\/undisturbed\/lora_weights\.safetensors$/m);
    assert.match(undisturbed.stdout, /^loss curve: .*\/undisturbed\/loss\.png$/m);
    assert.match(
      undisturbed.stdout,
      new RegExp(`^epoch ${EPOCHS}/${EPOCHS}  loss \\d\\.\\d{4}  .* steps/s  ETA 0 s$`, 'm'),
    );
    assert.equal(undisturbed.stderr, '');
    assert.match(undisturbed.stdout, /^10 pictures, 2 of them doubtful: brushwork inspect tells why\n/);
    assert.equal((await sharp(path.join(at('undisturbed'), 'loss.png')).metadata()).format, 'png');
  });

  it('writes a line for each step, from 0 on, with the keys of the contract', () => {
    const steps = stepsOf('undisturbed');
    assert.equal(steps.length, STEPS);
    steps.forEach((line, index) => {
      assert.deepEqual(Object.keys(line), ['step', 'epoch', 'loss', 'timesteps', 'learning_rate']);
      const { step, epoch, loss, timesteps, learning_rate } = line;
      assert.deepEqual([step, epoch, learning_rate], [index, Math.floor(index / PICTURE_COUNT), 1e-4]);
      assert.ok(typeof loss === 'number' && loss > 0 && Number.isFinite(loss));
      assert.ok(Array.isArray(timesteps) && timesteps.length === 1);
      assert.ok(timesteps.every((t) => Number.isInteger(t) && t >= 0 && t < 1000));
    });
  });

  it('makes the same bytes again from the same input', async () => {
    const again = await train('again');
    assert.equal(again.code, 0, again.stderr);
    assertEqualFiles('again');
  });

  it('trains the text encoder where it is asked to, and writes over no training that is finished', async () => {
    const config = { rank: 2, resolution: 64, epochs: 1, train_text_encoder: true };
    writeFileSync(at('text-encoder.json'), JSON.stringify(config));
    const trained = await train('both', '--config', at('text-encoder.json'));
    assert.equal(trained.code, 0, trained.stderr);
    const folder = path.join(at('both'), 'peft_text_encoder');
    assert.deepEqual(readdirSync(folder).sort(), ['adapter_config.json', 'adapter_model.safetensors']);
    const weights = readFileSync(path.join(at('both'), 'lora_weights.safetensors'));
    const again = await train('both');
    assert.equal(again.code, 1);
    assert.match(
      again.stderr,
      /^INVALID_REQUEST: .*both\/lora_weights\.safetensors is of an earlier run, .* name another --output, or delete .*\n$/,
    );
    assert.deepEqual(readFileSync(path.join(at('both'), 'lora_weights.safetensors')), weights);
  });

  for (const [signal, toGroup] of [
    ['SIGINT', true],
    ['SIGTERM', false],
  ] as const) {
    // Ctrl-C reaches every process of the terminal's group, the trainer too; SIGTERM the command alone.
    it(`stops on ${signal} with a checkpoint, and goes on to the same bytes`, async () => {
      const output = `stopped-${signal}`;
      const file = path.join(at(output), 'steps.jsonl');
      let sent: Promise<void> = Promise.resolve();
      const stopped = await brushwork(
        (groupId) => {
          const enough = () => existsSync(file) && readFileSync(file, 'utf8').split('\n').length > 5;
          sent = until(enough, 'the first steps').then(() => {
            process.kill(toGroup ? -groupId : groupId, signal);
          });
        },
        ...optionsFor(output),
      );
      await sent;
      assert.equal(stopped.code, 130, stopped.stderr);
      const stepCount = stepsOf(output).length;
      assert.ok(stepCount < STEPS, 'it was stopped too late to show anything');
      assert.match(stopped.stdout, new RegExp(`stopped after ${stepCount} steps: .* --resume goes on`));
      assert.match(stopped.stdout, /^stopping after this step$/m);
      assert.deepEqual(readdirSync(at(output)).sort(), ['checkpoint.json', 'checkpoint.safetensors', 'steps.jsonl']);
      const anew = await train(output);
      assert.match(anew.stderr, /^INVALID_REQUEST: .* go on with --resume, or delete it to start anew\.\n$/);
      const other = await train(output, '--resume', '--caption', 'something else');
      assert.match(
        other.stderr,
        /^CHECKPOINT_INCOMPATIBLE: .* other captions: picture-1\.png, .*picture-9\.jpg\..*\n$/,
      );
      const checkpoint = path.join(at(output), 'checkpoint.safetensors');
      flipLastBit(checkpoint);
      const damaged = await train(output, '--resume');
      assert.equal(damaged.code, 1);
      assert.match(damaged.stderr, /^CHECKSUM_MISMATCH: .*checkpoint\.safetensors can't be gone on from: .*\n$/);
      flipLastBit(checkpoint);

      const resumed = await train(output, '--resume');
      assert.equal(resumed.code, 0, resumed.stderr);
      assertEqualFiles(output);
      const left = readdirSync(at(output)).filter((name) => name.startsWith('checkpoint'));
      assert.deepEqual(left, [], 'the checkpoint has served');
    });
  }

  it('ends at once on a second Ctrl-C, and its trainer with it', async () => {
    const output = 'ended';
    let sent: Promise<void> = Promise.resolve();
    let group = 0;
    const ended = await brushwork(
      (groupId) => {
        group = groupId;
        sent = until(() => existsSync(path.join(at(output), 'steps.jsonl')), 'the first step').then(() => {
          process.kill(groupId, 'SIGINT');
          process.kill(groupId, 'SIGTERM');
        });
      },
      ...optionsFor(output),
    );
    await sent;
    assert.equal(ended.code, 130, ended.stderr);
    await until(() => !isGroupAlive(group), 'the end of the trainer', 2_000);
    assert.ok(!existsSync(path.join(at(output), 'lora_weights.safetensors')));
  });

  it('makes no model where there is one', async () => {
    const { code, stderr } = await brushwork('make-base-model', '--preset', 'small', '--output', at('model'));
    assert.equal(code, 1);
    assert.match(stderr, /^INVALID_REQUEST: .* holds a model already: name another directory, or delete that one\.\n$/);
  });

  it('refuses to resume where there is no checkpoint', async () => {
    const { code, stderr } = await train('never-started', '--resume');
    assert.equal(code, 1);
    assert.match(stderr, /^INVALID_REQUEST: .*checkpoint\.safetensors does not exist: start without --resume\.\n$/);
  });

  it('names an unknown key, and what was meant', async () => {
    writeFileSync(at('typo.json'), '{"epoch": 3, "colour": 1}');
    const { code, stderr } = await train('typo', '--config', at('typo.json'));
    assert.equal(code, 1);
    assert.match(
      stderr,
      /^INVALID_REQUEST: .*typo\.json can't be used: .*"epoch" \(did you mean "epochs"\?\).*"colour".*\n$/,
    );
    assert.ok(!existsSync(at('typo')));
  });

  it('names a configuration file that is no JSON', async () => {
    writeFileSync(at('broken.json'), '{"epochs": ');
    const { code, stderr } = await train('broken', '--config', at('broken.json'));
    assert.equal(code, 1);
    assert.match(stderr, /^INVALID_REQUEST: .*broken\.json can't be read as JSON: .*\n$/);
  });

  it('names every picture that is unusable', async () => {
    await writePictures(at('damaged'));
    truncateSync(path.join(at('damaged'), 'picture-3.jpg'), 1000);
    writeFileSync(path.join(at('damaged'), 'picture-4.png'), 'no picture at all');
    // Not even the base model is looked at before that.
    const { code, stderr } = await train('of-damaged', '--images', at('damaged'), '--model', at('nowhere'));
    assert.equal(code, 1);
    assert.match(stderr, /^IMAGE_INVALID: 2 of 10 pictures can't be used: picture-3\.jpg .*; picture-4\.png .*\n$/);
  });

  it('says so where there is no picture', async () => {
    const { code, stderr } = await train('of-none', '--images', at('model'));
    assert.equal(code, 1);
    assert.match(stderr, /^TOO_FEW_IMAGES: .*holds no picture.*\n$/);
  });

  it('says what a base model lacks', async () => {
    const { code, stderr } = await train('without-model', '--model', at('pictures'));
    assert.equal(code, 1);
    assert.match(stderr, /^MODEL_LOAD_FAILED: The base model .* lacks model_index\.json, .*\n$/);
  });
});
