import { appendFileSync, existsSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { InvalidRequestError } from '../common/errors.ts';
import type { TrainerPosition } from '../common/trainer.ts';
import type { TrainingConfig, ValidationLoss } from '../common/types.ts';

/** `validation.jsonl` of one run: a line for each measurement on held-out pictures, also over a resume. */
export class ValidationLog {
  readonly #file: string;
  readonly #losses: ValidationLoss[];

  /**
   * @param file - kept up to where the run stands, else begun anew; there is none without validation
   * @param config - of the run
   * @param start - where the run stands
   * @throws InvalidRequestError when the file of a run that goes on is gone
   */
  constructor(file: string, { validationPictures }: TrainingConfig, { microStepsRun, epochsRun }: TrainerPosition) {
    this.#file = file;
    if (validationPictures === 0) {
      this.#losses = [];
      rmSync(file, { force: true });
      return;
    }
    if (microStepsRun > 0 && !existsSync(file)) {
      throw new InvalidRequestError(
        `${file} of the run to resume is gone: it decides about the rest. Restore the file, or start without --resume in another output directory.`,
      );
    }
    // What a run measured after its checkpoint is measured again. Cut off and never written anew: a kill in between loses nothing.
    const kept = microStepsRun > 0 ? readLosses(file).filter(({ measured }) => measured.epoch <= epochsRun) : [];
    this.#losses = kept.map(({ measured }) => measured);
    if (microStepsRun === 0) writeFileSync(file, '');
    else
      truncateSync(
        file,
        kept.reduce((sum, { bytes }) => sum + bytes, 0),
      );
  }

  /** Everything measured so far, oldest first. */
  get losses(): readonly ValidationLoss[] {
    return this.#losses;
  }

  /** Whether there is a measurement after this many epochs. */
  has(epoch: number): boolean {
    return this.#losses.some((measured) => measured.epoch === epoch);
  }

  /** Adds a measurement. */
  append(measured: ValidationLoss): void {
    this.#losses.push(measured);
    appendFileSync(this.#file, format(measured));
  }
}

function format({ epoch, loss }: ValidationLoss): string {
  return `${JSON.stringify({ epoch, loss })}\n`;
}

/**
 * The measurements, each with what it takes in the file. Lines are written before the checkpoint behind them, so only those
 * after it can be torn.
 */
function readLosses(file: string): { measured: ValidationLoss; bytes: number }[] {
  return readFileSync(file, 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line) => ({ measured: JSON.parse(line) as ValidationLoss, bytes: Buffer.byteLength(line) + 1 }));
}
