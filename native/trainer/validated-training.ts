import type { StepReport, Trainer, TrainerPosition } from '../../common/trainer.ts';
import type { TrainingConfig, ValidationLoss } from '../../common/types.ts';
import { isValidationDue, nextValidation } from '../../common/validation.ts';

/** Losses travel with as many digits as a float32 has: histories, manifests and files stay small. */
const LOSS_DIGITS = 7;

/** What {@link trainAndValidate} needs. */
export interface ValidatedTraining {
  trainer: Pick<Trainer, 'train' | 'validate'>;
  config: TrainingConfig;
  /** Where the trainer stands. */
  from: TrainerPosition;
  stepsPerEpoch: number;
  /** Train until this many epochs are done. */
  untilEpoch: number;
  /** Whether the held-out pictures were measured after this many epochs already. */
  isValidated: (epoch: number) => boolean;
  onStep: (report: StepReport) => void;
  /** Called before a measurement, which may take longer than a step. */
  onValidating?: () => void;
  /** Receives what was measured, unless it is not finite: that is no part of a curve. */
  onValidated: (measured: ValidationLoss) => void;
  signal: AbortSignal;
}

/**
 * Trains, and measures the held-out pictures wherever that is due, where the trainer stands included. Without
 * validation it is one call of `train`.
 *
 * @param run - see {@link ValidatedTraining}
 * @returns where it ended; `stopped` when the signal ended it first
 */
export async function trainAndValidate(
  run: ValidatedTraining,
): Promise<{ position: TrainerPosition; stopped: boolean }> {
  const { trainer, config, stepsPerEpoch, untilEpoch, signal } = run;
  let position = run.from;
  for (;;) {
    const { epochsRun } = position;
    const isBetweenEpochs = position.microStepsRun === epochsRun * stepsPerEpoch;
    if (isBetweenEpochs && isValidationDue(epochsRun, config) && !run.isValidated(epochsRun)) {
      run.onValidating?.();
      const loss = await trainer.validate(signal);
      if (loss === null) return { position, stopped: true };
      if (Number.isFinite(loss)) run.onValidated({ epoch: epochsRun, loss: Number(loss.toPrecision(LOSS_DIGITS)) });
    }
    if (epochsRun >= untilEpoch) return { position, stopped: false };
    const result = await trainer.train(Math.min(untilEpoch, nextValidation(epochsRun, config)), run.onStep, signal);
    if (result.stopped) return result;
    position = result.position;
  }
}
