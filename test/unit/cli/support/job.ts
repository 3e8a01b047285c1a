import type { TrainerJob } from '../../../../common/trainer.ts';
import { trainingConfig } from '../../../support/training-config.ts';

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
    config: trainingConfig({ dropout: 0, epochs }),
    ...rest,
  };
}
