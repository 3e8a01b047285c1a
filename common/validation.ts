import type { TrainingConfig, ValidationLoss } from './types.ts';

/** What of a configuration decides about validation. */
type Validation = Pick<TrainingConfig, 'epochs' | 'validationPictures' | 'validationEveryEpochs'>;

/** What of a configuration decides about an early end; absent in one that an older version froze. */
type EarlyStop = Partial<Pick<TrainingConfig, 'earlyStopPatience' | 'earlyStopMinDelta'>>;

/**
 * Whether the held-out pictures are measured after an epoch: before the first one, after every so many, and at the end.
 *
 * @param epoch - epochs trained
 * @param config - of the run
 */
export function isValidationDue(
  epoch: number,
  { epochs, validationPictures, validationEveryEpochs }: Validation,
): boolean {
  return validationPictures > 0 && (epoch % validationEveryEpochs === 0 || epoch === epochs);
}

/**
 * The first epoch after another one at which the held-out pictures are measured.
 *
 * @param epoch - epochs trained
 * @param config - of the run
 * @returns Infinity where there is none
 */
export function nextValidation(epoch: number, config: Validation): number {
  const { epochs, validationPictures, validationEveryEpochs } = config;
  if (validationPictures === 0 || epoch >= epochs) return Infinity;
  return Math.min(epochs, (Math.floor(epoch / validationEveryEpochs) + 1) * validationEveryEpochs);
}

/**
 * Why a training that has got nowhere for too long ends now. A function of what was measured and nothing else, so that a
 * resumed run decides like an undisturbed one; to be asked where a chunk of epochs ends.
 *
 * @param losses - of the run so far, oldest first
 * @param config - of the run
 * @returns a sentence, or null: it goes on
 */
export function earlyStopReason(
  losses: readonly ValidationLoss[],
  { earlyStopPatience = null, earlyStopMinDelta = 0 }: EarlyStop,
): string | null {
  if (earlyStopPatience === null) return null;
  let best: ValidationLoss | null = null;
  let worseCount = 0;
  for (const each of losses) {
    if (best === null || each.loss < best.loss * (1 - earlyStopMinDelta)) {
      best = each;
      worseCount = 0;
    } else worseCount += 1;
  }
  if (best === null || worseCount < earlyStopPatience) return null;
  return (
    `The validation loss has not improved${earlyStopMinDelta > 0 ? ` by more than ${percent(earlyStopMinDelta)}` : ''} ` +
    `on ${best.loss.toPrecision(4)}, as after epoch ${best.epoch}, ` +
    `in ${worseCount} measurements.`
  );
}

function percent(share: number): string {
  return `${Number((share * 100).toPrecision(3))} %`;
}
