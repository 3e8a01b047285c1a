import assert from 'node:assert/strict';
import { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mock } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import pino from 'pino';
import sharp from 'sharp';
import {
  CancelledError,
  CheckpointIncompatibleError,
  GpuFaultError,
  GpuOutOfMemoryError,
  ImageInvalidError,
  LossNotFiniteError,
} from '../../../../common/errors.ts';
import type { StepReport, TrainerJob } from '../../../../common/trainer.ts';
import { writeRandomTokenizer } from '../../../../native/trainer/random-base-model.ts';
import { TrainerProcess } from '../../../../native/trainer/trainer-process.ts';
import { trainingConfig } from '../../../support/training-config.ts';

/** Seeds that make the fake trainer behave in one way or another. */
const SCENARIOS = {
  slow: 0,
  fast: 1,
  segfault: 2,
  badAlloc: 3,
  lossNotFinite: 4,
  killed: 5,
  hangsInPrepare: 6,
  slowValidation: 8,
  hangsInTraining: 9,
};

const NEVER = new AbortController().signal;

const SAMPLE = {
  prompt: 'a hill',
  negativePrompt: '',
  seed: 1,
  sampler: 'ddim',
  stepCount: 2,
  guidanceScale: 7.5,
  widthPx: 8,
  heightPx: 8,
  lora: 'job',
} as const;

describe('trainer process', () => {
  let directory: string;
  let trainer: TrainerProcess;
  let lines: string[];

  const jobOf = (seed: number, jobId = 'job-1'): TrainerJob => ({
    jobId,
    baseModelDirectory: join(directory, 'base'),
    baseModelName: 'base',
    imageDirectory: join(directory, 'images'),
    fallbackCaption: 'a picture',
    logLabels: {},
    config: trainingConfig({ seed, dropout: 0, epochs: 5 }),
  });

  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'trainer-process-'));
    await writeRandomTokenizer(join(directory, 'base/tokenizer'));
    const picture = sharp({ create: { width: 64, height: 64, channels: 3, background: '#a04010' } }).png();
    await mkdir(join(directory, 'images'));
    await writeFile(join(directory, 'images/one.png'), await picture.toBuffer());
  });

  after(() => rm(directory, { recursive: true }));

  beforeEach(() => {
    lines = [];
    const logger = pino({ level: 'debug' }, { write: (line: string) => void lines.push(line) });
    const entryFile = join(import.meta.dirname, 'fake-trainer-main.ts');
    trainer = new TrainerProcess({ device: 'auto', threadCount: 2, logger, entryFile });
  });

  afterEach(() => trainer.kill());

  it('tells what it runs on', async () => {
    assert.deepEqual(await trainer.runtime(), {
      device: 'cpu',
      gpuName: null,
      gpuMemoryMiB: null,
      torch: 'fake',
      threadCount: 2,
      mixedPrecisionDefault: 'no',
    });
  });

  it('tells the process which GPU it may see', async () => {
    const logger = pino({ level: 'silent' });
    const entryFile = join(import.meta.dirname, 'fake-trainer-main.ts');
    const other = new TrainerProcess({ device: 'auto', threadCount: 2, cudaVisibleDevices: '1', logger, entryFile });
    try {
      assert.equal((await other.runtime()).gpuName, 'GPU 1');
    } finally {
      await other.kill();
    }
  });

  it('does not go on without the GPU that it had', async () => {
    const gpu = join(directory, 'gpu');
    const logger = pino({ level: 'silent' });
    const entryFile = join(import.meta.dirname, 'fake-trainer-main.ts');
    const other = new TrainerProcess({ device: 'auto', threadCount: 2, cudaVisibleDevices: gpu, logger, entryFile });
    try {
      await writeFile(gpu, '');
      assert.equal((await other.runtime()).device, 'cuda');
      await other.kill();
      await rm(gpu);
      await assert.rejects(other.prepare(jobOf(SCENARIOS.fast), null, NEVER), GpuFaultError);
      await assert.rejects(other.runtime(), /GPU of this machine is gone/);
      await other.kill();
      await writeFile(gpu, '');
      assert.equal((await other.runtime()).device, 'cuda');
    } finally {
      await other.kill();
    }
  });

  it('reports every step in order, also of very fast ones', async () => {
    await trainer.prepare(jobOf(SCENARIOS.fast), null, NEVER);
    const reports: StepReport[] = [];
    const result = await trainer.train(5, (report) => reports.push(report), NEVER);
    assert.equal(result.stopped, false);
    assert.deepEqual(
      reports.map(({ step }) => step),
      Array.from({ length: 500 }, (_, step) => step),
    );
    assert.deepEqual(trainer.position('job-1'), { epochsRun: 5, microStepsRun: 500, optimizerStepsRun: 500 });
    assert.equal(trainer.position('job-2'), null);
  });

  it('stops soon after the signal', async () => {
    await trainer.prepare(jobOf(SCENARIOS.slow), null, NEVER);
    const cancel = new AbortController();
    const { position, stopped } = await trainer.train(5, ({ step }) => step === 20 && cancel.abort(), cancel.signal);
    assert.equal(stopped, true);
    assert.ok(position.microStepsRun > 20 && position.microStepsRun < 150, `${position.microStepsRun} steps`);
    assert.deepEqual(trainer.position('job-1'), position);
    const again = await trainer.train(5, () => assert.fail('no step expected'), cancel.signal);
    assert.deepEqual(again, { position, stopped: true });
  });

  it('measures the held-out pictures, and stops that soon after the signal', async () => {
    await trainer.prepare(jobOf(SCENARIOS.fast), null, NEVER);
    assert.equal(await trainer.validate(NEVER), 0.25);
    await trainer.prepare(jobOf(SCENARIOS.slowValidation), null, NEVER);
    const cancel = new AbortController();
    setTimeout(() => cancel.abort(), 50);
    const startMs = performance.now();
    assert.equal(await trainer.validate(cancel.signal), null);
    assert.ok(performance.now() - startMs < 1_500, 'all of it takes 2 s');
    assert.equal(await trainer.validate(cancel.signal), null);
    assert.ok(trainer.position('job-1'), 'the run may go on');
  });

  it('goes on from a checkpoint and writes one', async () => {
    const position = await trainer.prepare(jobOf(SCENARIOS.fast), 'good.safetensors', NEVER);
    assert.equal(position.epochsRun, 2);
    await trainer.train(3, () => undefined, NEVER);
    const file = join(directory, 'out.safetensors');
    assert.equal((await trainer.saveCheckpoint(file)).epochsRun, 3);
    assert.equal(await readFile(file, 'utf8'), '300');
  });

  it('keeps the process and the base model over jobs, and loads again when the precision changes', async () => {
    await trainer.prepare(jobOf(SCENARIOS.fast), null, NEVER);
    const { pid } = trainer;
    await trainer.prepare(jobOf(SCENARIOS.fast, 'job-2'), null, NEVER);
    assert.equal(trainer.position('job-1'), null);
    const half = jobOf(SCENARIOS.fast, 'job-3');
    half.config.mixedPrecision = 'bf16';
    await trainer.prepare(half, null, NEVER);
    assert.equal(trainer.pid, pid);
    await trainer.kill();
    assert.equal(lines.filter((line) => line.includes('base model loaded')).length, 2);
  });

  it('hands on errors by their code', async () => {
    await assert.rejects(trainer.prepare(jobOf(0), 'bad.safetensors', NEVER), (error) => {
      assert.ok(error instanceof CheckpointIncompatibleError);
      assert.equal(error.message, 'It has rank 4, the job wants 8.');
      return true;
    });
    const missing = { ...jobOf(0), imageDirectory: join(directory, 'missing') };
    await assert.rejects(trainer.prepare(missing, null, NEVER), ImageInvalidError);
    await trainer.prepare(jobOf(SCENARIOS.lossNotFinite), null, NEVER);
    await assert.rejects(
      trainer.train(1, () => undefined, NEVER),
      LossNotFiniteError,
    );
    assert.equal(trainer.position('job-1'), null);
  });

  it('names the signal of a segfault, and starts anew at the next prepare', async () => {
    await trainer.prepare(jobOf(SCENARIOS.segfault), null, NEVER);
    const { pid } = trainer;
    await assert.rejects(
      trainer.train(1, () => undefined, NEVER),
      (error) => {
        assert.ok(error instanceof GpuFaultError);
        assert.match(error.message, /SIGSEGV/);
        return true;
      },
    );
    assert.equal(trainer.position('job-1'), null);
    assert.equal(trainer.pid, null);
    await assert.rejects(trainer.saveCheckpoint(join(directory, 'never')), GpuFaultError);
    await trainer.prepare(jobOf(SCENARIOS.fast), null, NEVER);
    assert.notEqual(trainer.pid, pid);
    assert.equal((await trainer.train(1, () => undefined, NEVER)).stopped, false);
  });

  it('calls an abort for want of memory out of memory and quotes the last words', async () => {
    await trainer.prepare(jobOf(SCENARIOS.badAlloc), null, NEVER);
    await assert.rejects(
      trainer.train(1, () => undefined, NEVER),
      (error) => {
        assert.ok(error instanceof GpuOutOfMemoryError);
        assert.match(error.message, /std::bad_alloc/);
        return true;
      },
    );
  });

  it('calls a kill without signs of the out-of-memory killer a fault, not one of a GPU that is not there', async () => {
    assert.equal((await trainer.runtime()).device, 'cpu');
    await trainer.prepare(jobOf(SCENARIOS.killed), null, NEVER);
    await assert.rejects(
      trainer.train(1, () => undefined, NEVER),
      (error) => error instanceof GpuFaultError && /SIGKILL.*look for who kills it/.test(error.message),
    );
  });

  it('rejects an aborted prepare at once with the reason', async () => {
    const cancel = new AbortController();
    const reason = new Error('called off');
    setTimeout(() => cancel.abort(reason), 1500);
    await assert.rejects(trainer.prepare(jobOf(SCENARIOS.hangsInPrepare), null, cancel.signal), reason);
    assert.equal(trainer.position('job-1'), null);
  });

  it('hands on what onStep throws, after the run has stopped', async () => {
    await trainer.prepare(jobOf(SCENARIOS.slow), null, NEVER);
    const fault = new Error('disk full');
    const broken = (): void => {
      throw fault;
    };
    await assert.rejects(trainer.train(5, broken, NEVER), fault);
    const position = trainer.position('job-1');
    assert.ok(position !== null && position.microStepsRun < 500);
  });

  it('draws a sample', async () => {
    await trainer.prepare(jobOf(SCENARIOS.fast), null, NEVER);
    const file = join(directory, 'sample.png');
    await trainer.sample({ ...SAMPLE, file }, NEVER);
    assert.equal((await sharp(await readFile(file)).metadata()).width, 8);
  });

  it('stops drawing when it is told to, before and while it draws', async () => {
    await trainer.prepare(jobOf(SCENARIOS.fast), null, NEVER);
    const file = join(directory, 'endless.png');
    const called = new AbortController();
    const drawing = trainer.sample({ ...SAMPLE, stepCount: 1_000_000, file }, called.signal);
    const reason = new CancelledError('enough');
    setTimeout(() => called.abort(reason), 20);
    await assert.rejects(drawing, reason);
    await assert.rejects(trainer.sample({ ...SAMPLE, stepCount: 1_000_000, file }, called.signal), reason);
    assert.ok(!existsSync(file));
    // The trainer holds its job still.
    assert.notEqual(trainer.position('job-1'), null);
    await trainer.sample({ ...SAMPLE, file }, NEVER);
  });

  it('kills idempotently, and everything under way ends with it', async () => {
    await trainer.kill();
    await trainer.prepare(jobOf(SCENARIOS.slow), null, NEVER);
    const training = trainer.train(5, () => undefined, NEVER);
    const outcome = assert.rejects(training, GpuFaultError);
    await trainer.kill();
    await trainer.kill();
    await outcome;
  });

  it('gives up one that does not even end by SIGKILL, and starts none beside it until it is gone', async () => {
    const logger = pino({ level: 'silent' });
    const entryFile = join(import.meta.dirname, 'fake-trainer-main.ts');
    const stuck = new TrainerProcess({ device: 'auto', threadCount: 2, logger, entryFile, killLimitMs: 100 });
    // As where it hangs in the driver of the GPU.
    const signals = mock.method(ChildProcess.prototype, 'kill', () => true);
    try {
      await stuck.prepare(jobOf(SCENARIOS.hangsInTraining), null, NEVER);
      const training = stuck.train(5, () => undefined, NEVER);
      const words = /does not end, not even by SIGKILL/;
      const outcome = assert.rejects(training, (error) => error instanceof GpuFaultError && words.test(error.message));
      await stuck.kill();
      await outcome;
      await assert.rejects(stuck.runtime(), words);
      await assert.rejects(stuck.prepare(jobOf(SCENARIOS.fast), null, NEVER), words);
      await assert.rejects(stuck.saveCheckpoint(join(directory, 'never')), words);
      assert.deepEqual([stuck.pid, stuck.position('job-1')], [null, null]);
      signals.mock.restore();
      await stuck.kill();
      while ((await stuck.runtime().catch(() => null)) === null) await sleep(20);
    } finally {
      signals.mock.restore();
      await stuck.kill();
    }
  });
});
