import { trainingConfigFor } from '../../common/training-config.ts';
import type { TrainingConfig } from '../../common/types.ts';

/** A complete configuration for a small job: everything that `changes` does not name is at its default. */
export function trainingConfig(changes: Partial<TrainingConfig> = {}): TrainingConfig {
  const nothingRequested = { epochs: null, learningRate: null, batchSize: null };
  const small = { rank: 4, alpha: 8, resolutionPx: 64 };
  const imageCount = 1 + 2 * (changes.validationPictures ?? 0);
  return trainingConfigFor(nothingRequested, { ...small, ...changes }, { imageCount, mixedPrecisionDefault: 'no' });
}
