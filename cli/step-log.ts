import { closeSync, ftruncateSync, openSync, readFileSync, writeSync } from 'node:fs';
import { InvalidRequestError } from '../common/errors.ts';
import type { StepReport } from '../common/trainer.ts';

/** A line of `steps.jsonl`. */
interface StepLine {
  step: number;
  epoch: number;
  loss: number;
  timesteps: number[];
  learning_rate: number;
}

/** `steps.jsonl` of one run: a line for each micro-step, from step 0 on, also over a resume. */
export class StepLog {
  readonly #fd: number;
  readonly #losses: number[] = [];
  readonly #epochs: number[] = [];

  /**
   * @param file - kept up to `stepsRun` when that is above 0, else begun anew
   * @param stepsRun - micro-steps that the run has behind it
   * @throws InvalidRequestError when the file does not hold those steps
   */
  constructor(file: string, stepsRun: number) {
    const kept = stepsRun > 0 ? readLines(file, stepsRun) : [];
    for (const { line } of kept) this.#count(line);
    // What a run wrote after its checkpoint is computed again. Cut off and never written anew: a kill in between loses nothing.
    this.#fd = openSync(file, 'a');
    ftruncateSync(
      this.#fd,
      kept.reduce((sum, { bytes }) => sum + bytes, 0),
    );
  }

  /** Adds a step. */
  append(report: StepReport): void {
    const { step, epoch, loss, timesteps, learningRate } = report;
    const line = { step, epoch, loss, timesteps, learning_rate: learningRate };
    this.#count(line);
    writeSync(this.#fd, format(line));
  }

  /** Loss of each micro-step so far. */
  get stepLosses(): readonly number[] {
    return this.#losses;
  }

  /** Mean loss of each epoch so far; the last one may be incomplete. */
  get epochLosses(): number[] {
    const sums = new Map<number, { total: number; count: number }>();
    this.#losses.forEach((loss, i) => {
      const epoch = this.#epochs[i] ?? 0;
      const { total, count } = sums.get(epoch) ?? { total: 0, count: 0 };
      sums.set(epoch, { total: total + loss, count: count + 1 });
    });
    return [...sums.values()].map(({ total, count }) => total / count);
  }

  close(): void {
    closeSync(this.#fd);
  }

  #count({ loss, epoch }: StepLine): void {
    this.#losses.push(loss);
    this.#epochs.push(epoch);
  }
}

function format(line: StepLine): string {
  return `${JSON.stringify(line)}\n`;
}

/** The lines of the first steps, each with what it takes in the file. */
function readLines(file: string, stepsRun: number): { line: StepLine; bytes: number }[] {
  const remedy = 'Restore the file, or start without --resume in another output directory.';
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new InvalidRequestError(`${file} of the run to resume can't be read. ${remedy}`, { cause: error });
  }
  const lines = text.split('\n').slice(0, -1).slice(0, stepsRun);
  try {
    const read = lines.map((line) => ({ line: JSON.parse(line) as StepLine, bytes: Buffer.byteLength(line) + 1 }));
    if (read.length === stepsRun && read.every(({ line }, i) => line.step === i)) return read;
  } catch {
    // A torn line is told like a missing one.
  }
  throw new InvalidRequestError(`${file} does not hold the ${stepsRun} steps of the checkpoint. ${remedy}`);
}
