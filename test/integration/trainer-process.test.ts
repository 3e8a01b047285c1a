import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import sharp from 'sharp';
import {
  CheckpointIncompatibleError,
  GpuFaultError,
  ImageInvalidError,
  ModelLoadFailedError,
  TooFewImagesError,
} from '../../common/errors.ts';
import type { StepReport, TrainerJob } from '../../common/trainer.ts';
import type { TrainingConfig } from '../../common/types.ts';
import { loadAddon } from '../../native/index.ts';
import { writeRandomBaseModel } from '../../native/trainer/random-base-model.ts';
import { TrainerProcess } from '../../native/trainer/trainer-process.ts';
import { until } from './support/until.ts';

const NEVER = new AbortController().signal;
const SIDE_PX = 64;
const ORPHAN_SCRIPT = path.join(import.meta.dirname, 'support/orphan-trainer.ts');
const WEIGHT_FILES = [
  'kohya.safetensors',
  'lora_weights.safetensors',
  'peft/adapter_config.json',
  'peft/adapter_model.safetensors',
];

function isAlive(pid: number): boolean {
  // A child that nobody has collected yet is dead all the same.
  return existsSync(`/proc/${pid}`) && !/^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
}

describe('trainer process with the real addon', function () {
  this.timeout(120_000);

  let directory: string;
  let trainer: TrainerProcess;
  let lines: string[];

  const inside = (...names: string[]) => path.join(directory, ...names);

  const jobOf = (changes: Partial<TrainingConfig> = {}, others: Partial<TrainerJob> = {}): TrainerJob => ({
    jobId: 'job-1',
    baseModelDirectory: inside('model'),
    baseModelName: 'tiny',
    imageDirectory: inside('images'),
    fallbackCaption: 'a picture of stripes',
    config: {
      seed: 11,
      rank: 4,
      alpha: 8,
      dropout: 0.1,
      learningRate: 1e-3,
      weightDecay: 0.01,
      epochs: 1000,
      batchSize: 1,
      gradientAccumulation: 1,
      maxGradNorm: null,
      mixedPrecision: 'no',
      resolutionPx: SIDE_PX,
      ...changes,
    },
    ...others,
  });

  const weightsIn = async (name: string): Promise<Buffer[]> => {
    await trainer.exportWeights(inside(name));
    return WEIGHT_FILES.map((file) => readFileSync(inside(name, file)));
  };

  const nothing = () => undefined;

  before(async () => {
    directory = mkdtempSync(path.join(tmpdir(), 'brushwork-trainer-'));
    await writeRandomBaseModel(loadAddon(), inside('model'), 'tiny', 1);
    mkdirSync(inside('images'));
    for (let index = 0; index < 3; index++) {
      const pixels = Buffer.from(Array.from({ length: 80 * 70 * 3 }, (_, i) => (i * (index + 2)) % 256));
      const image = sharp(pixels, { raw: { width: 80, height: 70, channels: 3 } });
      writeFileSync(inside('images', `${index}.png`), await image.png().toBuffer());
    }
    writeFileSync(inside('images/1.txt'), 'sunset over hills');
  });

  after(() => rmSync(directory, { recursive: true }));

  beforeEach(() => {
    lines = [];
    const logger = pino({ level: 'debug' }, { write: (line: string) => void lines.push(line) });
    trainer = new TrainerProcess({ device: 'cpu', threadCount: 1, logger });
  });

  afterEach(() => trainer.kill());

  it('tells what it runs on', async () => {
    const { torch, ...rest } = await trainer.runtime();
    assert.match(torch, /^2\.\d+\.\d+/);
    assert.deepEqual(rest, {
      device: 'cpu',
      gpuName: null,
      gpuMemoryMiB: null,
      threadCount: 1,
      mixedPrecisionDefault: 'no',
    });
  });

  it('trains, writes a checkpoint and the weights', async () => {
    const start = await trainer.prepare(jobOf(), null, NEVER);
    assert.deepEqual(start, { epochsRun: 0, microStepsRun: 0, optimizerStepsRun: 0 });
    const reports: StepReport[] = [];
    const { position, stopped } = await trainer.train(2, (report) => reports.push(report), NEVER);
    assert.deepEqual(position, { epochsRun: 2, microStepsRun: 6, optimizerStepsRun: 6 });
    assert.equal(stopped, false);
    assert.deepEqual(
      reports.map(({ step, epoch }) => [step, epoch]),
      [0, 1, 2, 3, 4, 5].map((step) => [step, Math.floor(step / 3)]),
    );
    assert.ok(reports.every(({ loss }) => loss > 0));
    assert.deepEqual(await trainer.saveCheckpoint(inside('a.safetensors')), position);
    await weightsIn('weights-a');
    const config = JSON.parse(readFileSync(inside('weights-a/peft/adapter_config.json'), 'utf8')) as object;
    assert.equal((config as { base_model_name_or_path: string }).base_model_name_or_path, 'tiny');
  });

  it('writes the same bytes after 2 + 2 epochs in two processes as after 4 in one', async () => {
    await trainer.prepare(jobOf(), null, NEVER);
    await trainer.train(4, nothing, NEVER);
    await trainer.saveCheckpoint(inside('straight.safetensors'));
    const straight = await weightsIn('straight');
    await trainer.prepare(jobOf(), null, NEVER);
    await trainer.train(2, nothing, NEVER);
    await trainer.saveCheckpoint(inside('half.safetensors'));
    await trainer.kill();
    const position = await trainer.prepare(jobOf(), inside('half.safetensors'), NEVER);
    assert.deepEqual(position, { epochsRun: 2, microStepsRun: 6, optimizerStepsRun: 6 });
    await trainer.train(4, nothing, NEVER);
    await trainer.saveCheckpoint(inside('resumed.safetensors'));
    assert.deepEqual(await weightsIn('resumed'), straight);
    assert.ok(readFileSync(inside('resumed.safetensors')).equals(readFileSync(inside('straight.safetensors'))));
  });

  it('stops within one step, and goes on to the same bytes', async () => {
    await trainer.prepare(jobOf(), null, NEVER);
    const cancel = new AbortController();
    let lastStep = -1;
    let stepAtAbort = -1;
    const { position, stopped } = await trainer.train(
      1000,
      ({ step, durationMs }) => {
        lastStep = step;
        if (step < 4 || stepAtAbort >= 0) return;
        stepAtAbort = step;
        lines.push(`step of ${durationMs} ms`);
        cancel.abort();
      },
      cancel.signal,
    );
    assert.equal(stopped, true);
    assert.equal(position.microStepsRun, lastStep + 1);
    assert.deepEqual(trainer.position('job-1'), position);
    const untilEpoch = Math.ceil(position.microStepsRun / 3);
    await trainer.train(untilEpoch, nothing, NEVER);
    const stoppedBetween = await weightsIn('stopped');
    await trainer.prepare(jobOf(), null, NEVER);
    await trainer.train(untilEpoch, nothing, NEVER);
    assert.deepEqual(await weightsIn('not-stopped'), stoppedBetween);
  });

  it('answers a stop in the time of a few steps', async () => {
    // Large enough that a step takes longer than the pauses between two reports.
    await trainer.prepare(jobOf({ resolutionPx: 128 }), null, NEVER);
    const cancel = new AbortController();
    let steps = 0;
    let stepMs = 0;
    let abortedAtMs = 0;
    await trainer.train(
      1000,
      ({ durationMs }) => {
        stepMs = Math.max(stepMs, durationMs);
        if (++steps !== 3) return;
        abortedAtMs = performance.now();
        cancel.abort();
      },
      cancel.signal,
    );
    const waitedMs = performance.now() - abortedAtMs;
    assert.ok(waitedMs < 3 * stepMs + 1000, `${waitedMs} ms for steps of ${stepMs} ms`);
    assert.ok(steps <= 3 + 2 + Math.ceil(100 / stepMs), `${steps} steps`);
  });

  it('names a segfault, and the next prepare goes on from the checkpoint', async () => {
    await trainer.prepare(jobOf(), null, NEVER);
    await trainer.train(1, nothing, NEVER);
    await trainer.saveCheckpoint(inside('before-fault.safetensors'));
    const { pid } = trainer;
    assert.ok(pid !== null);
    const fault = assert.rejects(
      trainer.train(1000, ({ step }) => step === 8 && process.kill(pid, 'SIGSEGV'), NEVER),
      (error) => {
        assert.ok(error instanceof GpuFaultError);
        assert.match(error.message, /ended by SIGSEGV.*started anew from the last checkpoint/);
        return true;
      },
    );
    await fault;
    assert.equal(trainer.position('job-1'), null);
    const position = await trainer.prepare(jobOf(), inside('before-fault.safetensors'), NEVER);
    assert.equal(position.epochsRun, 1);
    assert.equal((await trainer.train(2, nothing, NEVER)).position.epochsRun, 2);
  });

  it('calls off a prepare under way', async () => {
    const cancel = new AbortController();
    const reason = new Error('called off');
    const preparing = trainer.prepare(jobOf(), null, cancel.signal);
    setTimeout(() => cancel.abort(reason), 50);
    await assert.rejects(preparing, reason);
    await trainer.prepare(jobOf(), null, NEVER);
  });

  it('draws a picture of the training resolution, with and without the style', async () => {
    await trainer.prepare(jobOf({ learningRate: 0.05 }), null, NEVER);
    await trainer.train(2, nothing, NEVER);
    const request = { prompt: 'sunset', seed: 1, stepCount: 2, guidanceScale: 5 };
    await trainer.sample({ ...request, useLora: true, file: inside('styled.png') });
    await trainer.sample({ ...request, useLora: true, file: inside('styled-again.png') });
    await trainer.sample({ ...request, useLora: false, file: inside('plain.png') });
    const { width, height, format } = await sharp(inside('styled.png')).metadata();
    assert.deepEqual([width, height, format], [SIDE_PX, SIDE_PX, 'png']);
    assert.ok(readFileSync(inside('styled-again.png')).equals(readFileSync(inside('styled.png'))));
    assert.ok(!readFileSync(inside('plain.png')).equals(readFileSync(inside('styled.png'))));
  });

  describe('bad input', () => {
    it('names all unusable pictures at once', async () => {
      mkdirSync(inside('bad'));
      const good = readFileSync(inside('images/0.png'));
      writeFileSync(inside('bad/good.png'), good);
      writeFileSync(inside('bad/cut.png'), good.subarray(0, good.length / 2));
      writeFileSync(inside('bad/text.jpg'), 'not a picture');
      await assert.rejects(trainer.prepare(jobOf({}, { imageDirectory: inside('bad') }), null, NEVER), (error) => {
        assert.ok(error instanceof ImageInvalidError);
        assert.match(error.message, /^2 of 3 pictures can't be used: cut\.png .*; text\.jpg is not a JPEG/);
        return true;
      });
      await trainer.prepare(jobOf(), null, NEVER);
    });

    it('says that a directory holds no picture', async () => {
      mkdirSync(inside('empty'));
      await assert.rejects(
        trainer.prepare(jobOf({}, { imageDirectory: inside('empty') }), null, NEVER),
        TooFewImagesError,
      );
    });

    it('refuses checkpoints that are damaged or of another run', async () => {
      await trainer.prepare(jobOf(), null, NEVER);
      await trainer.train(1, nothing, NEVER);
      await trainer.saveCheckpoint(inside('good.safetensors'));
      const good = readFileSync(inside('good.safetensors'));
      const damaged: Record<string, Buffer> = {
        'cut.safetensors': good.subarray(0, good.length - 100),
        'header.safetensors': Buffer.concat([Buffer.from('garbage!'), good.subarray(8)]),
        'empty.safetensors': Buffer.alloc(0),
      };
      for (const [name, bytes] of Object.entries(damaged)) writeFileSync(inside(name), bytes);
      for (const name of [...Object.keys(damaged), 'missing.safetensors']) {
        await assert.rejects(trainer.prepare(jobOf(), inside(name), NEVER), (error) => {
          assert.ok(error instanceof CheckpointIncompatibleError, `${name}: ${String(error)}`);
          assert.ok(error.message.includes(name), error.message);
          return true;
        });
        assert.equal(trainer.position('job-1'), null);
      }
      await assert.rejects(
        trainer.prepare(jobOf({ rank: 8 }), inside('good.safetensors'), NEVER),
        /rank is 4, the job's is 8/,
      );
      assert.equal((await trainer.prepare(jobOf(), inside('good.safetensors'), NEVER)).epochsRun, 1);
    });

    it('says what is wrong with the base model', async () => {
      const missing = jobOf({}, { baseModelDirectory: inside('nowhere') });
      await assert.rejects(trainer.prepare(missing, null, NEVER), ModelLoadFailedError);
      writeFileSync(inside('a-file'), '');
      await trainer.prepare(jobOf(), null, NEVER);
      await assert.rejects(trainer.exportWeights(inside('a-file')), /a-file/);
    });
  });

  describe('when its parent is killed', () => {
    for (const activity of ['training', 'loading and writing']) {
      it(`is gone within a second and writes nothing more, in the middle of ${activity}`, async () => {
        const output = inside(`orphan-${activity.length}`);
        mkdirSync(output);
        const checkpointFile = path.join(output, 'state.safetensors');
        const parent = spawn(process.execPath, [ORPHAN_SCRIPT, JSON.stringify(jobOf()), checkpointFile, activity], {
          stdio: ['ignore', 'pipe', 'inherit'],
        });
        const [line] = (await once(createInterface({ input: parent.stdout }), 'line')) as [string];
        const pid = Number(line);
        assert.ok(isAlive(pid));
        if (activity !== 'training')
          await until(
            () => existsSync(checkpointFile),
            () => 'a checkpoint',
          );
        await sleep(300);
        parent.kill('SIGKILL');
        const killedAtMs = performance.now();
        await until(
          () => !isAlive(pid),
          () => `the end of ${pid}`,
          5_000,
        );
        assert.ok(performance.now() - killedAtMs < 1_000, `${performance.now() - killedAtMs} ms`);
        const state = () => readdirSync(output).map((name) => [name, statSync(path.join(output, name)).mtimeMs]);
        const atEnd = state();
        await sleep(500);
        assert.deepEqual(state(), atEnd);
      });
    }
  });
});
