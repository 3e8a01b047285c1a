import { BrushworkError } from '../common/errors.ts';
import type { ErrorCode } from '../common/errors.ts';
import { PodDiskError } from './disk-fault.ts';

/** The machine's fault more often than the job's. */
const BLAMED: readonly ErrorCode[] = [
  ...(['GPU_FAULT', 'TRAINING_STALLED', 'MODEL_LOAD_FAILED'] as const),
  // Where it may be tried again: a control worker has found the pictures sound. One that is gone was deleted, mostly.
  'IMAGE_INVALID',
];
const LONGEST_MS = 600_000;

function blames(error: unknown): error is BrushworkError {
  if (!(error instanceof BrushworkError) || !error.retryable) return false;
  return error instanceof PodDiskError || BLAMED.includes(error.code);
}

/**
 * Keeps a pod on which work has failed from taking a job at once: while good pods are busy, a bad one is the first to be free, and
 * would use up all tries of a job. It rests twice as long after each further failure, until a chunk has been trained.
 */
export class PodRest {
  readonly #firstMs: number;
  readonly #nowMs: () => number;
  #failures = 0;
  #untilMs = -Infinity;
  #reason = '';

  /**
   * @param firstMs - how long it rests after the first failure; later ones at most ten minutes
   * @param nowMs - a clock that is never set
   */
  constructor(firstMs: number, nowMs = () => performance.now()) {
    this.#firstMs = firstMs;
    this.#nowMs = nowMs;
  }

  /** Work has failed; errors that are not the machine's count for nothing. */
  failed(error: unknown): void {
    if (!blames(error)) return;
    this.#failures += 1;
    const restMs = Math.min(this.#firstMs * 2 ** (this.#failures - 1), LONGEST_MS);
    this.#untilMs = this.#nowMs() + restMs;
    this.#reason = `Resting for ${Math.round(restMs / 1000)} s after ${error.code}: ${error.message}`;
  }

  /** A chunk has been trained. */
  worked(): void {
    this.#failures = 0;
  }

  /** Why the pod takes no job now, or null. */
  get reason(): string | null {
    return this.#nowMs() < this.#untilMs ? this.#reason : null;
  }
}
