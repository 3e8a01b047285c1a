import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import path from 'node:path';
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
import { skip } from '../../support/skip.ts';
import {
  SIDE_PX,
  addon,
  addonForAllTests,
  directory,
  image,
  job,
  modelDirectory,
  sampleOptions,
  trainer,
} from './support/addon.ts';

const LIMITS_SCRIPT = fileURLToPath(new URL('./addon-limits.ts', import.meta.url));

/** What addon-limits.ts prints in the case that `scenario` names; fails where the process does not end in good order. */
async function atTheLimit(scenario: string): Promise<string> {
  const { stdout } = await promisify(execFile)(process.execPath, [LIMITS_SCRIPT, scenario], { timeout: 50_000 });
  return stdout;
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

describe('native addon, when something is wrong', function () {
  addonForAllTests(this);

  describe('bad input', () => {
    const cases: [name: string, fields: string[], call: (field: string) => unknown][] = [
      [
        'new Trainer',
        ['device', 'threadCount'],
        (field) => new addon.Trainer(without({ device: 'cpu', threadCount: 1 }, field)),
      ],
      [
        'loadBaseModel',
        ['directory', 'mixedPrecision', 'lora'],
        (field) =>
          trainer.loadBaseModel(without({ directory: modelDirectory, mixedPrecision: 'no', lora: null }, field)),
      ],
      [
        'startJob',
        [
          'config',
          ...Object.keys(job().config).map((field) => `config.${field}`),
          'images',
          ...Object.keys(image(0)).map((field) => `images.0.${field}`),
          'emptyTokenIds',
        ],
        (field) => trainer.startJob(without(job(), field)),
      ],
      [
        'exportWeights',
        ['directory', 'baseModelName', 'resolutionPx'],
        (field) => trainer.exportWeights(without({ directory, baseModelName: 'tiny', resolutionPx: 64 }, field)),
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
        trainer.loadBaseModel({ directory: modelDirectory, mixedPrecision: 'fp8' as never, lora: null }),
        new TypeError("Expected 'no' or 'fp16' or 'bf16' for options.mixedPrecision but received fp8"),
      );
    });
  });

  describe('errors', () => {
    it('a missing model is a ModelLoadFailedError with the native error as its cause', async () => {
      const other = new addon.Trainer({ device: 'cpu', threadCount: 1 });
      await assert.rejects(
        other.loadBaseModel({ directory: path.join(directory, 'nowhere'), mixedPrecision: 'no', lora: null }),
        (error) => {
          assert.ok(error instanceof ModelLoadFailedError);
          assert.match(error.message, /nowhere/);
          assert.ok(error.cause instanceof Error);
          assert.equal(error.cause.name, 'ModelLoadFailedError');
          assert.equal((error.cause as Error & { code?: string }).code, 'MODEL_LOAD_FAILED');
          assert.match(error.stack ?? '', /addon-errors\.test\.ts/);
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

    it('pixels that do not fit the size are an ImageInvalidError', async () => {
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

    it('a picture that does not fit the memory is a GpuOutOfMemoryError, on this thread too', async () => {
      assert.equal(await atTheLimit('memory'), 'GpuOutOfMemoryError\n');
    });

    // What belongs to JavaScript must not be freed on the trainer's thread: V8 ends the process then, most of the time.
    it('trainings that are refused while others are asked for leave the process whole', async () => {
      assert.equal(await atTheLimit('refusals'), '120000 refused\n');
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
});
