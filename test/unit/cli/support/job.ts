import type { TrainerJob } from '../../../../common/trainer.ts';

/** A job whose paths lead nowhere unless the test sets them. */
export function jobOf(given: Partial<TrainerJob> & { epochs?: number }): TrainerJob {
  const { epochs = 1, ...rest } = given;
  return {
    jobId: 'cli',
    baseModelDirectory: '/nowhere',
    baseModelName: 'base',
    imageDirectory: '/nowhere',
    fallbackCaption: 'a picture',
    logLabels: {},
    config: {
      seed: 0,
      rank: 4,
      alpha: 8,
      dropout: 0,
      learningRate: 1e-4,
      weightDecay: 0.01,
      epochs,
      batchSize: 1,
      gradientAccumulation: 1,
      maxGradNorm: null,
      mixedPrecision: 'no',
      resolutionPx: 64,
      gradientCheckpointing: false,
    },
    ...rest,
  };
}
