import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { OutputDirectory } from '../../../cli/output-directory.ts';
import { INTERRUPTED, runTraining } from '../../../cli/training-run.ts';
import {
  CheckpointIncompatibleError,
  GpuFaultError,
  GpuOutOfMemoryError,
  InvalidRequestError,
} from '../../../common/errors.ts';
import { PREVIEWS } from '../../support/previews.ts';
import type { TrainingConfig } from '../../../common/types.ts';
import { trainingConfig } from '../../support/training-config.ts';
import { CountingTrainer } from './support/counting-trainer.ts';
import { jobOf } from './support/job.ts';

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
    options: {
      resume?: boolean;
      stop?: AbortController;
      isTTY?: boolean;
      into?: string;
      previews?: boolean;
      config?: Partial<TrainingConfig>;
    } = {},
  ) {
    const { resume = false, stop = new AbortController(), isTTY = false, into = directory, config = {} } = options;
    return runTraining({
      trainer,
      sheet: options.previews === true ? PREVIEWS.sheet : null,
      job: jobOf({ imageDirectory: images, config: trainingConfig({ dropout: 0, epochs, ...config }) }),
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

  it('says what is missing when it is stopped while it draws the last sheet', async () => {
    const stop = new AbortController();
    trainer.onSheet = (steps) => {
      if (steps < 50) return;
      stop.abort();
      throw new Error('stopped');
    };
    assert.equal(await run(25, { previews: true, stop }), INTERRUPTED);
    assert.match(text, /^weights: .*\nloss curve: .*\nstopped: .* only the contact sheet of epoch 25 is missing\n$/m);
    assert.ok(['loss.png', 'lora_weights.safetensors'].every((name) => existsSync(path.join(directory, name))));
    assert.ok(!existsSync(path.join(directory, 'checkpoint.safetensors')));
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

  describe('with held-out pictures', () => {
    const config = { validationPictures: 1, validationEveryEpochs: 4 };
    const validated = () => readFileSync(path.join(directory, 'validation.jsonl'), 'utf8');

    beforeEach(() => writeFileSync(path.join(images, 'c.png'), 'c'));

    it('measures before the first epoch, every so many and at the end, and writes it down', async () => {
      assert.equal(await run(10, { config }), 0);
      assert.deepEqual(trainer.validatedAt, [0, 4, 8, 10]);
      assert.equal(
        validated(),
        '{"epoch":0,"loss":1}\n{"epoch":4,"loss":0.2}\n{"epoch":8,"loss":0.1111111}\n{"epoch":10,"loss":0.09090909}\n',
      );
      assert.match(text, /^epoch 8 {2}validation loss 0\.1111$/m);
      assert.match(text, /^held out of training: [abc]\.png$/m);
      assert.equal(lines(), 20);
    });

    it('leaves no file of it without', async () => {
      trainer.failsAtStep = 3;
      await assert.rejects(run(10, { config }), GpuFaultError);
      assert.ok(existsSync(path.join(directory, 'validation.jsonl')));
      rmSync(path.join(images, 'c.png'));
      trainer = new CountingTrainer();
      await run(10);
      assert.ok(!existsSync(path.join(directory, 'validation.jsonl')));
    });

    it('measures the same after a crash', async () => {
      const undisturbedRun = path.join(directory, 'undisturbed');
      mkdirSync(undisturbedRun);
      await run(25, { config, into: undisturbedRun });
      const undisturbed = readFileSync(path.join(undisturbedRun, 'validation.jsonl'), 'utf8');
      trainer = new CountingTrainer();
      trainer.failsAtStep = 33;
      await assert.rejects(run(25, { config }), GpuFaultError);
      trainer = new CountingTrainer();
      await run(25, { config, resume: true });
      assert.deepEqual(trainer.validatedAt, [12, 16, 20, 24, 25]);
      assert.equal(validated(), undisturbed);
    });

    it('does not go on when what was measured is lost, or with other pictures held out', async () => {
      trainer.failsAtStep = 33;
      await assert.rejects(run(25, { config }), GpuFaultError);
      writeFileSync(path.join(images, 'd.png'), 'd');
      const more = { ...config, validationPictures: 2 };
      await assert.rejects(run(25, { config: more, resume: true }), /another validation_pictures/);
      rmSync(path.join(images, 'd.png'));
      rmSync(path.join(directory, 'validation.jsonl'));
      await assert.rejects(run(25, { config, resume: true }), /validation\.jsonl of the run to resume is gone/);
    });

    describe('and an early stop', () => {
      const early = { ...config, validationEveryEpochs: 5, earlyStopPatience: 3 };
      /** Best after 15 epochs: three measurements without a better one are over after 30. */
      const lossAt = (epoch: number) => 1 + Math.abs(epoch - 15) / 100;

      it('ends where a chunk ends, with weights and a curve', async () => {
        trainer.validationLossAt = lossAt;
        assert.equal(await run(100, { config: early }), 0);
        assert.match(
          text,
          /^stopped early after epoch 30 of 100: The validation loss has not improved on 1\.000, as after epoch 15, in 3/m,
        );
        assert.equal(readFileSync(path.join(directory, 'lora_weights.safetensors'), 'utf8'), '60');
        assert.ok(existsSync(path.join(directory, 'loss.png')));
        assert.ok(!existsSync(path.join(directory, 'checkpoint.safetensors')));
      });

      it('ends at the same epoch however often it is interrupted', async () => {
        for (let stops = 0; ; stops++) {
          assert.ok(stops < 100);
          trainer = new CountingTrainer();
          trainer.validationLossAt = lossAt;
          const stop = new AbortController();
          const atStep = stops * 3 + 1;
          const train = trainer.train.bind(trainer);
          trainer.train = (untilEpoch, onStep, signal) =>
            train(untilEpoch, (report) => (onStep(report), report.step >= atStep && stop.abort()), signal);
          if ((await run(100, { config: early, stop, resume: stops > 0 })) === 0) break;
        }
        assert.equal(readFileSync(path.join(directory, 'lora_weights.safetensors'), 'utf8'), '60');
      });

      it('does not end within a chunk, where an undisturbed run does not ask', async () => {
        const impatient = { ...early, earlyStopPatience: 1 };
        /** Worse in the middle of each chunk, better than ever at its end. */
        const restless = (epoch: number) => (epoch % 10 === 5 ? 9 : 1 / (1 + epoch));
        trainer.validationLossAt = restless;
        const stop = new AbortController();
        const train = trainer.train.bind(trainer);
        trainer.train = (untilEpoch, onStep, signal) =>
          train(untilEpoch, (report) => (onStep(report), report.step === 12 && stop.abort()), signal);
        assert.equal(await run(20, { config: impatient, stop }), INTERRUPTED);
        trainer = new CountingTrainer();
        trainer.validationLossAt = restless;
        assert.equal(await run(20, { config: impatient, resume: true }), 0);
        assert.equal(readFileSync(path.join(directory, 'lora_weights.safetensors'), 'utf8'), '40');
      });

      it('ends at the same epoch after an interruption in the very measurement that decides', async () => {
        trainer.validationLossAt = lossAt;
        const stop = new AbortController();
        trainer.onValidate = (epoch) => epoch === 30 && stop.abort();
        assert.equal(await run(100, { config: early, stop }), INTERRUPTED);
        trainer = new CountingTrainer();
        trainer.validationLossAt = lossAt;
        assert.equal(await run(100, { config: early, resume: true }), 0);
        assert.deepEqual(trainer.validatedAt, [30]);
        assert.equal(readFileSync(path.join(directory, 'lora_weights.safetensors'), 'utf8'), '60');
      });
    });
  });

  it('says of a run that is finished that there is nothing to go on with', async () => {
    await run(2);
    assert.throws(() => run(2, { resume: true }), { code: 'INVALID_REQUEST', message: /is finished/ });
  });

  it('refuses to write over a finished run, whichever of its results are left', async () => {
    await run(2);
    const refused = { code: 'INVALID_REQUEST', message: /of an earlier run, .*: name another --output, or delete/ };
    for (const name of ['lora_weights.safetensors', 'loss.png']) {
      const before = readFileSync(path.join(directory, name));
      trainer = new CountingTrainer();
      assert.throws(() => run(3), refused);
      assert.deepEqual(readFileSync(path.join(directory, name)), before);
      rmSync(path.join(directory, name));
    }
    assert.equal(await run(3), 0);
  });

  it('begins anew after a crash before the first checkpoint', async () => {
    trainer.failsAtStep = 5;
    await assert.rejects(run(25), GpuFaultError);
    trainer = new CountingTrainer();
    assert.equal(await run(25), 0);
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

  it('refuses to end a run that has trained longer, and keeps what that run needs', async () => {
    trainer.failsAtStep = 24;
    await assert.rejects(run(30), GpuFaultError);
    trainer.failsAtStep = -1;
    const before = readdirSync(directory).sort();
    await assert.rejects(run(5, { resume: true }), {
      code: 'INVALID_REQUEST',
      message: /has trained 10\.0 epochs already, and epochs is 5: raise it to go on/,
    });
    assert.deepEqual(readdirSync(directory).sort(), before);
    assert.equal(await run(30, { resume: true }), 0);
  });
});
