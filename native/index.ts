import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { InternalError } from '../common/errors.ts';
import { convertNativeError } from './errors.ts';
import type {
  NativeAddon,
  NativeBaseModelInfo,
  NativeBaseModelOptions,
  NativeExportOptions,
  NativeJob,
  NativePicture,
  NativePosition,
  NativeSampleOptions,
  NativeStepReport,
  NativeTrainer,
  NativeTrainerOptions,
  NativeTrainResult,
} from './native.ts';

/** Where `npm run build:native` leaves the addon. */
export const ADDON_FILE = path.join(import.meta.dirname, '../build/Release/brushwork.node');

/** Awaits here, so that the stack of what is thrown shows the caller's `await`. */
async function converted<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw convertNativeError(error);
  }
}

function convertedNow<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw convertNativeError(error);
  }
}

class ConvertingTrainer implements NativeTrainer {
  readonly #raw: NativeTrainer;

  constructor(raw: NativeTrainer) {
    this.#raw = raw;
  }

  loadBaseModel(options: NativeBaseModelOptions): Promise<NativeBaseModelInfo> {
    return converted(() => this.#raw.loadBaseModel(options));
  }

  startJob(job: NativeJob): Promise<void> {
    return converted(() => this.#raw.startJob(job));
  }

  restore(checkpointFile: string): Promise<NativePosition> {
    return converted(() => this.#raw.restore(checkpointFile));
  }

  train(untilEpoch: number, onStep: (report: NativeStepReport) => void): Promise<NativeTrainResult> {
    return converted(() => this.#raw.train(untilEpoch, onStep));
  }

  validate(): Promise<number | null> {
    return converted(() => this.#raw.validate());
  }

  stop(): void {
    this.#raw.stop();
  }

  saveCheckpoint(file: string): Promise<NativePosition> {
    return converted(() => this.#raw.saveCheckpoint(file));
  }

  exportWeights(options: NativeExportOptions): Promise<void> {
    return converted(() => this.#raw.exportWeights(options));
  }

  sample(options: NativeSampleOptions): Promise<NativePicture | null> {
    return converted(() => this.#raw.sample(options));
  }
}

function explainLoadFailure(file: string, cause: unknown): InternalError {
  const solutions = existsSync(file)
    ? [
        'libtorch may have moved since the build: run `npm run build:native`, which finds or downloads it again;',
        'the build may be for another machine: remove the folder build, then run `npm run build:native`.',
      ]
    : ['it has not been built yet: run `npm run build:native` (or `npm run demo`, which builds it first).'];
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new InternalError(
    `Could not load the native addon ${file}: ${reason}\nPossible solutions:\n- ${solutions.join('\n- ')}`,
    { cause },
  );
}

/**
 * Loads the native addon.
 *
 * @param file - the addon's binary
 * @returns the addon, with errors of `common/errors.ts` where it names one of them
 * @throws InternalError with possible solutions when it can't be loaded
 */
export function loadAddon(file: string = ADDON_FILE): NativeAddon {
  let raw: NativeAddon;
  try {
    raw = createRequire(import.meta.url)(file) as NativeAddon;
  } catch (error) {
    throw explainLoadFailure(file, error);
  }
  return {
    Trainer: class extends ConvertingTrainer {
      constructor(options: NativeTrainerOptions) {
        super(convertedNow(() => new raw.Trainer(options)));
      }
    },
    writeRandomBaseModel: (options) => converted(() => raw.writeRandomBaseModel(options)),
    endWithParent: () => raw.endWithParent(),
    runtimeInfo: () => convertedNow(() => raw.runtimeInfo()),
  };
}
