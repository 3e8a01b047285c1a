import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import {
  CheckpointIncompatibleError,
  GpuOutOfMemoryError,
  ImageInvalidError,
  InternalError,
  InvalidRequestError,
  LossNotFiniteError,
  ModelLoadFailedError,
} from '../../../common/errors.ts';
import { loadAddon } from '../../../native/index.ts';
import type {
  NativeAddon,
  NativeImage,
  NativeJob,
  NativeSampleOptions,
  NativeStepReport,
  NativeTrainer,
} from '../../../native/native.ts';
import { skip } from '../../support/skip.ts';

const SIDE_PX = 64;
const EXIT_SCRIPT = fileURLToPath(new URL('./addon-exit.ts', import.meta.url));

function image(index: number): NativeImage {
  const pixels = Uint8Array.from({ length: SIDE_PX * SIDE_PX * 3 }, (_, k) => (k * (index + 3)) % 256);
  const tokenIds = new Int32Array(77).fill(1023);
  tokenIds.set([1022, 5 + index]);
  return { name: `${index}.png`, widthPx: SIDE_PX, heightPx: SIDE_PX, pixels, tokenIds };
}

function job(changes: Partial<NativeJob['config']> = {}): NativeJob {
  return {
    config: {
      seed: 3,
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
      ...changes,
    },
    images: [image(0), image(1)],
  };
}

function sampleOptions(): NativeSampleOptions {
  const { tokenIds } = image(0);
  const size = { widthPx: SIDE_PX, heightPx: SIDE_PX };
  return { tokenIds, negativeTokenIds: tokenIds, stepCount: 2, guidanceScale: 3, seed: 1, ...size, useLora: true };
}

/** A copy of a value without one property, which may lie deeper: `config.rank`, `images.0.pixels`. */
function without(value: object, field: string): never {
  const copy = structuredClone(value) as Record<string, unknown>;
  const names = field.split('.');
  const last = names.pop() ?? '';
  const owner = names.reduce((object, name) => object[name] as Record<string, unknown>, copy);
  delete owner[last];
  return copy as never;
}

describe('native addon', function () {
  this.timeout(60_000);

  let addon: NativeAddon;
  let directory: string;
  let modelDirectory: string;
  let trainer: NativeTrainer;

  before(async () => {
    addon = loadAddon();
    directory = mkdtempSync(path.join(tmpdir(), 'brushwork-addon-'));
    modelDirectory = path.join(directory, 'model');
    await addon.writeRandomBaseModel({ directory: modelDirectory, preset: 'tiny', seed: 7 });
    trainer = new addon.Trainer({ device: 'cpu', threadCount: 1 });
    await trainer.loadBaseModel({ directory: modelDirectory, mixedPrecision: 'no' });
  });

  after(() => rmSync(directory, { recursive: true, force: true }));

  it('says what it runs on', () => {
    const { torch, cuda, gpuName, gpuMemoryMiB } = addon.runtimeInfo();
    assert.match(torch, /^2\.1[1-3]\.\d+/);
    assert.equal(gpuName === null, cuda === null);
    assert.equal(gpuMemoryMiB === null, cuda === null);
  });

  it('describes the base model that it loads', async () => {
    const info = await trainer.loadBaseModel({ directory: modelDirectory, mixedPrecision: 'no' });
    assert.ok(info.unetParameterCount > 100_000);
    assert.deepEqual(info, {
      unetParameterCount: info.unetParameterCount,
      loraModuleCount: 32,
      vaeScaleFactorPx: 4,
      textTokenCount: 77,
      predictionType: 'epsilon',
    });
  });

  it('reports each micro-step in order before train() resolves', async () => {
    await trainer.startJob(job());
    const reports: NativeStepReport[] = [];
    const result = await trainer.train(3, (report) => reports.push(report));
    assert.deepEqual(result, {
      position: { epochsRun: 3, microStepsRun: 6, optimizerStepsRun: 6 },
      stopped: false,
    });
    assert.deepEqual(
      reports.map(({ step, epoch }) => [step, epoch]),
      [0, 1, 2, 3, 4, 5].map((step) => [step, Math.floor(step / 2)]),
    );
    for (const report of reports) {
      assert.ok(report.loss > 0 && report.durationMs > 0);
      assert.equal(report.learningRate, 1e-3);
      assert.equal(report.timesteps.length, 1);
    }
  });

  it('leaves the event loop free while it trains', async () => {
    await trainer.startJob(job());
    let ticks = 0;
    const timer = setInterval(() => ticks++, 5);
    const start = performance.now();
    await trainer.train(15, () => undefined);
    const elapsedMs = performance.now() - start;
    clearInterval(timer);
    assert.ok(ticks >= elapsedMs / 50, `${ticks} ticks in ${elapsedMs} ms`);
  });

  it('stops within one step', async () => {
    await trainer.startJob(job());
    let stepAtStop = -1;
    let last = -1;
    const training = trainer.train(1000, ({ step }) => (last = step));
    while (last < 3) await sleep(1);
    trainer.stop();
    stepAtStop = last;
    const result = await training;
    assert.equal(result.stopped, true);
    // One step may have been under way, and one more report may have been on its way to this thread.
    assert.ok(result.position.microStepsRun <= stepAtStop + 3, `stopped at ${result.position.microStepsRun}`);
    assert.equal(result.position.microStepsRun, last + 1);
  });

  it('goes on after a stop', async () => {
    const { position } = await trainer.train(10, () => undefined);
    assert.equal(position.epochsRun, 10);
  });

  it('resumes from a checkpoint to byte-identical weights', async () => {
    const finish = async (name: string) => {
      await trainer.train(4, () => undefined);
      const output = path.join(directory, name);
      await trainer.exportWeights({ directory: output, baseModelName: 'tiny' });
      return ['lora_weights.safetensors', 'peft/adapter_model.safetensors', 'kohya.safetensors'].map((file) =>
        readFileSync(path.join(output, file)),
      );
    };
    const checkpoint = path.join(directory, 'checkpoint.safetensors');
    await trainer.startJob(job());
    await trainer.train(2, () => undefined);
    assert.equal((await trainer.saveCheckpoint(checkpoint)).epochsRun, 2);
    const expected = await finish('undisturbed');
    await trainer.startJob(job());
    assert.deepEqual(await trainer.restore(checkpoint), { epochsRun: 2, microStepsRun: 4, optimizerStepsRun: 4 });
    assert.deepEqual(await finish('resumed'), expected);
  });

  it('draws a picture with and without the LoRA', async () => {
    await trainer.startJob(job({ learningRate: 0.05 }));
    await trainer.train(3, () => undefined);
    const styled = await trainer.sample(sampleOptions());
    assert.equal(styled.pixels.length, styled.widthPx * styled.heightPx * 3);
    const plain = await trainer.sample({ ...sampleOptions(), useLora: false });
    assert.notDeepEqual(plain.pixels, styled.pixels);
  });

  it('rejects with what onStep threw, after stopping', async () => {
    await trainer.startJob(job());
    const thrown = new Error('from onStep');
    const training = trainer.train(1000, () => {
      throw thrown;
    });
    await assert.rejects(training, (error) => error === thrown);
  });

  describe('bad input', () => {
    const cases: [name: string, fields: string[], call: (field: string) => unknown][] = [
      [
        'new Trainer',
        ['device', 'threadCount'],
        (field) => new addon.Trainer(without({ device: 'cpu', threadCount: 1 }, field)),
      ],
      [
        'loadBaseModel',
        ['directory', 'mixedPrecision'],
        (field) => trainer.loadBaseModel(without({ directory: modelDirectory, mixedPrecision: 'no' }, field)),
      ],
      [
        'startJob',
        [
          'config',
          ...Object.keys(job().config).map((field) => `config.${field}`),
          'images',
          ...Object.keys(image(0)).map((field) => `images.0.${field}`),
        ],
        (field) => trainer.startJob(without(job(), field)),
      ],
      [
        'exportWeights',
        ['directory', 'baseModelName'],
        (field) => trainer.exportWeights(without({ directory, baseModelName: 'tiny' }, field)),
      ],
      ['sample', Object.keys(sampleOptions()), (field) => trainer.sample(without(sampleOptions(), field))],
      [
        'writeRandomBaseModel',
        ['directory', 'preset', 'seed'],
        (field) => addon.writeRandomBaseModel(without({ directory, preset: 'tiny', seed: 1 }, field)),
      ],
      ['restore', ['checkpointFile'], () => trainer.restore(undefined as never)],
      ['saveCheckpoint', ['file'], () => trainer.saveCheckpoint(undefined as never)],
      ['train', ['untilEpoch'], () => trainer.train(undefined as never, () => undefined)],
      ['train', ['onStep'], () => trainer.train(1, undefined as never)],
    ];
    for (const [name, fields, call] of cases) {
      for (const field of fields) {
        it(`${name} names the missing ${field}`, async () => {
          const named = field.replace(/\.(\d+)\./, '[$1].');
          await assert.rejects(
            async () => call(field),
            (error) => error instanceof TypeError && error.message.includes(named) && /nothing/.test(error.message),
          );
        });
      }
    }

    it('names a field of the wrong type and what it is', async () => {
      await assert.rejects(
        trainer.startJob(job({ rank: 4.5 })),
        new TypeError('Expected an integer for job.config.rank but received 4.5'),
      );
      await assert.rejects(
        trainer.loadBaseModel({ directory: modelDirectory, mixedPrecision: 'fp8' as never }),
        new TypeError("Expected 'no' or 'fp16' or 'bf16' for options.mixedPrecision but received fp8"),
      );
    });
  });

  describe('errors', () => {
    it('a missing model is a ModelLoadFailedError with the native error as its cause', async () => {
      const other = new addon.Trainer({ device: 'cpu', threadCount: 1 });
      await assert.rejects(
        other.loadBaseModel({ directory: path.join(directory, 'nowhere'), mixedPrecision: 'no' }),
        (error) => {
          assert.ok(error instanceof ModelLoadFailedError);
          assert.match(error.message, /nowhere/);
          assert.ok(error.cause instanceof Error);
          assert.equal(error.cause.name, 'ModelLoadFailedError');
          assert.equal((error.cause as Error & { code?: string }).code, 'MODEL_LOAD_FAILED');
          assert.match(error.stack ?? '', /addon\.test\.ts/);
          return true;
        },
      );
    });

    it('work without a model or a job is an InvalidRequestError that says what to call', async () => {
      const other = new addon.Trainer({ device: 'cpu', threadCount: 1 });
      await assert.rejects(other.startJob(job()), /loadBaseModel first/);
      await assert.rejects(
        other.train(1, () => undefined),
        (error) => error instanceof InvalidRequestError && /startJob first/.test(error.message),
      );
    });

    it('a number out of range is an InvalidRequestError', async () => {
      await assert.rejects(trainer.startJob(job({ rank: 0 })), InvalidRequestError);
    });

    it('another precision than the loaded one is an InvalidRequestError', async () => {
      await assert.rejects(trainer.startJob(job({ mixedPrecision: 'fp16' })), /mixed_precision/);
    });

    it('pictures of two sizes are an ImageInvalidError', async () => {
      const uneven = job();
      uneven.images.push({ ...image(2), widthPx: SIDE_PX * 2 });
      await assert.rejects(trainer.startJob(uneven), ImageInvalidError);
    });

    it('a checkpoint of another run is a CheckpointIncompatibleError', async () => {
      const checkpoint = path.join(directory, 'other.safetensors');
      await trainer.startJob(job());
      await trainer.saveCheckpoint(checkpoint);
      await trainer.startJob(job({ seed: 4 }));
      await assert.rejects(
        trainer.restore(checkpoint),
        (error) => error instanceof CheckpointIncompatibleError && /seed is 3, the job's is 4/.test(error.message),
      );
    });

    it('a diverged loss is a LossNotFiniteError', async () => {
      await trainer.startJob(job({ learningRate: 1e30 }));
      await assert.rejects(
        trainer.train(50, () => undefined),
        LossNotFiniteError,
      );
    });

    it('more memory than any machine has is a GpuOutOfMemoryError', async () => {
      await assert.rejects(
        trainer.startJob(job({ rank: 1e11 })),
        (error) => error instanceof GpuOutOfMemoryError && /smaller batch/.test(error.message),
      );
    });

    it('a GPU that is not there is an InvalidRequestError that says why', function () {
      if (addon.runtimeInfo().gpuName !== null) skip(this, 'needs a machine without a GPU');
      assert.throws(
        () => new addon.Trainer({ device: 'cuda', threadCount: 1 }),
        (error) => error instanceof InvalidRequestError && /'cuda'/.test(error.message),
      );
    });

    it('an addon that is not built names the command that builds it', () => {
      assert.throws(
        () => loadAddon('/nowhere/brushwork.node'),
        (error) => error instanceof InternalError && /Possible solutions:[^]*npm run build:native/.test(error.message),
      );
    });
  });

  describe('the end of the process', () => {
    /** Runs addon-exit.ts, which ends in the way that `scenario` names. */
    async function exitWith(scenario: string): Promise<{ stdout: string; elapsedMs: number }> {
      const start = performance.now();
      const { stdout } = await promisify(execFile)(process.execPath, [EXIT_SCRIPT, modelDirectory, scenario], {
        timeout: 30_000,
      });
      return { stdout, elapsedMs: performance.now() - start };
    }

    it('process.exit() in the middle of a training ends it cleanly', async () => {
      const { stdout } = await exitWith('exit');
      assert.match(stdout, /training/);
    });

    it('a worker thread that is terminated in the middle of a training leaves the process whole', async () => {
      const { stdout } = await exitWith('worker');
      assert.match(stdout, /worker ended/);
    });

    it('an idle trainer does not keep the process alive', async () => {
      const { stdout } = await exitWith('idle');
      assert.match(stdout, /idle/);
    });
  });

  it('makes a random base model of both presets', async () => {
    const small = path.join(directory, 'small');
    await addon.writeRandomBaseModel({ directory: small, preset: 'small', seed: 1 });
    for (const file of ['model_index.json', 'unet/config.json', 'vae/config.json', 'text_encoder/config.json']) {
      assert.ok(existsSync(path.join(small, file)), file);
    }
  });
});
