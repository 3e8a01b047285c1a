import { progressNotice } from './notify.ts';
import type { ProgressNotice } from '../common/backend-client.ts';
import type { StepReport } from '../common/trainer.ts';
import type { TrainEpochChunkInput, TrainProgress } from '../common/activity-types.ts';
import type { ValidationLoss } from '../common/types.ts';

/** Losses travel with as many digits as a float32 has: histories and manifests stay small. */
const LOSS_DIGITS = 7;
/** Weight of the newest step in the speed that is shown. */
const SPEED_SMOOTHING = 0.1;

/** Counts the steps of a chunk: losses per epoch, speed, time left. */
export class EpochMeter {
  readonly #input: TrainEpochChunkInput;
  readonly #losses = new Map<number, { sum: number; count: number }>();
  #steps = 0;
  #totalStepMs = 0;
  #latest: { loss: number | null; smoothStepMs: number } | null = null;
  readonly #validationLosses: ValidationLoss[] = [];

  constructor(input: TrainEpochChunkInput) {
    this.#input = input;
  }

  /** Steps counted so far. */
  get stepCount(): number {
    return this.#steps;
  }

  /** Counts a step. fp16 now and then skips one whose loss is not finite: it is no part of the mean. */
  add({ epoch, loss, durationMs }: StepReport): void {
    this.#steps += 1;
    this.#totalStepMs += durationMs;
    const smoothMs = this.#latest?.smoothStepMs ?? durationMs;
    const isFinite = Number.isFinite(loss);
    if (isFinite) {
      const sums = this.#losses.get(epoch) ?? { sum: 0, count: 0 };
      this.#losses.set(epoch, { sum: sums.sum + loss, count: sums.count + 1 });
    }
    const shown = isFinite ? loss : (this.#latest?.loss ?? null);
    this.#latest = { loss: shown, smoothStepMs: smoothMs + SPEED_SMOOTHING * (durationMs - smoothMs) };
  }

  /** Takes what was measured on the held-out pictures. */
  addValidation(measured: ValidationLoss): void {
    this.#validationLosses.push(measured);
  }

  /** What was measured on the held-out pictures, oldest first; undefined without validation. */
  get validationLosses(): ValidationLoss[] | undefined {
    return this.#input.config.validationPictures > 0 ? this.#validationLosses : undefined;
  }

  /** Mean loss of each epoch that has one, oldest first. */
  epochLosses(): number[] {
    return [...this.#losses.entries()]
      .sort(([a], [b]) => a - b)
      .map(([, { sum, count }]) => Number((sum / count).toPrecision(LOSS_DIGITS)));
  }

  /** Over all steps of the chunk; 0 before the first. */
  meanStepMs(): number {
    return this.#steps === 0 ? 0 : this.#totalStepMs / this.#steps;
  }

  /** What the heartbeat shows. */
  progress(): TrainProgress {
    const { fromEpoch, stepsPerEpoch, config } = this.#input;
    const step = fromEpoch * stepsPerEpoch + this.#steps;
    const totalSteps = config.epochs * stepsPerEpoch;
    const validation = this.validationLosses && { validationLoss: this.#validationLosses.at(-1)?.loss ?? null };
    const epoch = Math.floor(step / stepsPerEpoch);
    const position = { epoch, totalEpochs: config.epochs, step, totalSteps, ...validation };
    if (this.#latest === null) return { ...position, loss: null, stepsPerSecond: null, estimatedSeconds: null };
    const { loss, smoothStepMs } = this.#latest;
    return {
      ...position,
      loss,
      stepsPerSecond: Math.round(100_000 / smoothStepMs) / 100,
      estimatedSeconds: Math.round(((totalSteps - step) * smoothStepMs) / 1000),
    };
  }

  /** What the backend is told. */
  notice(styleId: number): ProgressNotice {
    const { epoch, totalEpochs, estimatedSeconds } = this.progress();
    return progressNotice(styleId, epoch, totalEpochs, estimatedSeconds);
  }
}
