import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { TrainingConfig } from '../../../../common/types.ts';
import { loadAddon } from '../../../../native/index.ts';
import type {
  NativeAddon,
  NativeImage,
  NativeJob,
  NativeSampleOptions,
  NativeTrainer,
} from '../../../../native/native.ts';
import { trainingConfig } from '../../../support/training-config.ts';

export const SIDE_PX = 64;

export function image(index: number): NativeImage {
  const pixels = Uint8Array.from({ length: SIDE_PX * SIDE_PX * 3 }, (_, k) => (k * (index + 3)) % 256);
  const tokenIds = new Int32Array(77).fill(1023);
  tokenIds.set([1022, 5 + index]);
  return { name: `${index}.png`, widthPx: SIDE_PX, heightPx: SIDE_PX, pixels, tokenIds };
}

export function job(changes: Partial<NativeJob['config']> = {}): NativeJob {
  // The core takes what the configuration's own checks refuse.
  const config: Partial<TrainingConfig> & NativeJob['config'] = {
    ...trainingConfig({ seed: 3, learningRate: 1e-3, epochs: 1000 }),
    ...changes,
  };
  for (const field of ['resolutionPx', 'resizeMode', 'triggerWord'] as const) delete config[field];
  for (const field of ['validationPictures', 'validationEveryEpochs'] as const) delete config[field];
  for (const field of ['earlyStopPatience', 'earlyStopMinDelta'] as const) delete config[field];
  return {
    config,
    images: [image(0), image(1)],
    validationImages: [],
    emptyTokenIds: new Int32Array(77).fill(1023).fill(1022, 0, 1),
  };
}

export function sampleOptions(): NativeSampleOptions {
  const { tokenIds } = image(0);
  const size = { widthPx: SIDE_PX, heightPx: SIDE_PX };
  return {
    tokenIds,
    negativeTokenIds: tokenIds,
    stepCount: 2,
    guidanceScale: 3,
    seed: 1,
    ...size,
    sampler: 'dpm++',
    lora: 'job',
  };
}

/** What {@link addonForAllTests} sets up, for the tests of the `describe` that runs. */
export let addon: NativeAddon;
export let directory: string;
/** A tiny base model in `directory`. */
export let modelDirectory: string;
/** Has loaded that model. */
export let trainer: NativeTrainer;

/**
 * Sets up the addon for the tests of a `describe`, which share one trainer.
 *
 * @param suite - that describe's `this`
 */
export function addonForAllTests(suite: Mocha.Suite): void {
  suite.timeout(60_000);

  before(async () => {
    addon = loadAddon();
    directory = mkdtempSync(path.join(tmpdir(), 'brushwork-addon-'));
    modelDirectory = path.join(directory, 'model');
    await addon.writeRandomBaseModel({ directory: modelDirectory, preset: 'tiny', seed: 7 });
    trainer = new addon.Trainer({ device: 'cpu', threadCount: 1 });
    await trainer.loadBaseModel({ directory: modelDirectory, mixedPrecision: 'no', lora: null });
  });

  after(() => rmSync(directory, { recursive: true, force: true }));
}
