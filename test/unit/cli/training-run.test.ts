import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { INTERRUPTED, OutputDirectory, runTraining } from '../../../cli/training-run.ts';
import {
  CheckpointIncompatibleError,
  GpuFaultError,
  GpuOutOfMemoryError,
  InvalidRequestError,
} from '../../../common/errors.ts';
import type { SheetRequest, StepReport, Trainer, TrainerPosition } from '../../../common/trainer.ts';
import { PREVIEWS } from '../../support/previews.ts';
import { jobOf } from './support/job.ts';

const STEPS_PER_EPOCH = 2;

/** Counts steps instead of training, and writes the count where the weights would go. */
class CountingTrainer implements Trainer {
  readonly checkpointsAt: number[] = [];
  failsAtStep = -1;
  onSheet: (steps: number) => void = () => undefined;
  #steps = 0;

  runtime(): never {
    throw new Error('not used');
  }

  async prepare(_job: unknown, checkpointFile: string | null): Promise<TrainerPosition> {
    this.#steps = checkpointFile === null ? 0 : Number(readFileSync(checkpointFile, 'utf8'));
    return this.position();
  }

  position(): TrainerPosition {
    return {
      epochsRun: Math.floor(this.#steps / STEPS_PER_EPOCH),
      microStepsRun: this.#steps,
      optimizerStepsRun: this.#steps,
    };
  }

  async train(untilEpoch: number, onStep: (report: StepReport) => void, signal: AbortSignal) {
    while (this.#steps < untilEpoch * STEPS_PER_EPOCH && !signal.aborted) {
      const step = this.#steps++;
      if (step === this.failsAtStep) throw new GpuFaultError('The trainer process ended by SIGSEGV.');
      const epoch = Math.floor(step / STEPS_PER_EPOCH);
      onStep({ step, epoch, loss: 1 / (step + 1), timesteps: [step], learningRate: 1e-4, durationMs: 1 });
    }
    return { position: this.position(), stopped: signal.aborted };
  }

  async saveCheckpoint(file: string): Promise<TrainerPosition> {
    this.checkpointsAt.push(this.#steps);
    writeFileSync(file, String(this.#steps));
    return this.position();
  }

  async exportWeights(directory: string): Promise<void> {
    writeFileSync(path.join(directory, 'lora_weights.safetensors'), String(this.#steps));
  }

  async drawSheet({ file, directory }: SheetRequest): Promise<void> {
    this.onSheet(this.#steps);
    mkdirSync(directory, { recursive: true });
    writeFileSync(file, String(this.#steps));
  }

  kill(): Promise<void> {
    return Promise.resolve();
  }
}

describe('training run', () => {
  let directory: string;
  let images: string;
  let text: string;
  let trainer: CountingTrainer;

  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'training-run-'));
    images = mkdtempSync(path.join(tmpdir(), 'training-run-images-'));
    for (const name of ['a.png', 'b.png']) writeFileSync(path.join(images, name), name);
    text = '';
    trainer = new CountingTrainer();
  });
  afterEach(() => [directory, images].forEach((each) => rmSync(each, { recursive: true })));

  function run(
    epochs: number,
    options: { resume?: boolean; stop?: AbortController; isTTY?: boolean; into?: string; previews?: boolean } = {},
  ) {
    const { resume = false, stop = new AbortController(), isTTY = false, into = directory } = options;
    return runTraining({
      trainer,
      sheet: options.previews === true ? PREVIEWS.sheet : null,
      job: jobOf({ imageDirectory: images, epochs }),
      baseModelFingerprint: 'f00',
      stepsPerEpoch: 2,
      target: new OutputDirectory(into, resume),
      output: { isTTY, write: (part) => (text += part) },
      signal: stop.signal,
    });
  }

  function lines(): number {
    return readFileSync(path.join(directory, 'steps.jsonl'), 'utf8').trimEnd().split('\n').length;
  }

  it('makes its output directory with those above it', async () => {
    await run(1, { into: path.join(directory, 'a/b') });
    assert.ok(readdirSync(path.join(directory, 'a/b')).includes('steps.jsonl'));
  });

  it('says so where no directory can be made, and does not try for ever', async () => {
    writeFileSync(path.join(directory, 'file'), '');
    for (const into of [path.join(directory, 'file'), path.join(directory, 'file/below'), '/proc/brushwork']) {
      await assert.rejects(run(1, { into }), { code: 'INVALID_REQUEST', message: /output directory .* can't be made/ });
    }
  });

  it('writes a checkpoint every 10 epochs and none at the end', async () => {
    assert.equal(await run(25), 0);
    assert.deepEqual(trainer.checkpointsAt, [20, 40]);
    assert.deepEqual(readdirSync(directory).sort(), ['lora_weights.safetensors', 'loss.png', 'steps.jsonl']);
    assert.equal(lines(), 50);
  });

  it('draws a contact sheet at each checkpoint and at the end, where it is asked to', async () => {
    assert.equal(await run(25, { previews: true }), 0);
    const sheets = path.join(directory, 'previews');
    assert.deepEqual(readdirSync(sheets).sort(), ['epoch-000010.png', 'epoch-000020.png', 'epoch-000025.png']);
    assert.equal(readFileSync(path.join(sheets, 'epoch-000020.png'), 'utf8'), '40');
  });

  it('tells of a sheet that could not be drawn, and goes on', async () => {
    trainer.onSheet = (steps) => {
      if (steps === 40) throw new GpuOutOfMemoryError('no room');
    };
    assert.equal(await run(25, { previews: true }), 0);
    assert.match(text, /^no contact sheet of epoch 20: no room$/m);
    assert.equal(readdirSync(path.join(directory, 'previews')).length, 2);
  });

  it('stops while it draws with the checkpoint of before', async () => {
    const stop = new AbortController();
    trainer.onSheet = () => {
      stop.abort();
      throw new Error('stopped');
    };
    assert.equal(await run(25, { previews: true, stop }), INTERRUPTED);
    assert.match(text, /stopped after 20 steps/);
    assert.doesNotMatch(text, /no contact sheet/);
  });

  it('goes on from the last checkpoint after a crash', async () => {
    trainer.failsAtStep = 33;
    await assert.rejects(run(25, { isTTY: true }), GpuFaultError);
    assert.ok(text.endsWith('\n'), 'the error must not stand behind the bar');
    assert.equal(lines(), 33);
    trainer = new CountingTrainer();
    assert.equal(await run(25, { resume: true }), 0);
    assert.equal(lines(), 50);
    assert.equal(readFileSync(path.join(directory, 'lora_weights.safetensors'), 'utf8'), '50');
  });

  it('stops with a checkpoint, and takes the next one where an undisturbed run does', async () => {
    const stop = new AbortController();
    const train = trainer.train.bind(trainer);
    trainer.train = (untilEpoch, onStep, signal) =>
      train(untilEpoch, (report) => (onStep(report), report.step === 6 && stop.abort()), signal);
    assert.equal(await run(25, { stop }), INTERRUPTED);
    assert.match(text, /^stopping after this step\nstopped after 7 steps: the same command with --resume goes on\n$/m);
    trainer = new CountingTrainer();
    assert.equal(await run(25, { resume: true }), 0);
    assert.deepEqual(trainer.checkpointsAt, [20, 40]);
    assert.equal(lines(), 50);
  });

  it('refuses to write over an interrupted run, or to go on with other pictures', async () => {
    trainer.failsAtStep = 33;
    await assert.rejects(run(25), GpuFaultError);
    assert.throws(() => run(25), InvalidRequestError);
    writeFileSync(path.join(images, 'b.png'), 'another');
    await assert.rejects(run(25, { resume: true }), CheckpointIncompatibleError);
    assert.ok(existsSync(path.join(directory, 'checkpoint.safetensors')));
  });
});
