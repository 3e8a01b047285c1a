import { TrainingStalledError } from '../common/errors.ts';

const CHECKS_PER_LIMIT = 20;

/** Notices a trainer that stands still. */
export class StallWatch {
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;
  #limitMs: number;
  #movedAt = performance.now();

  /**
   * Starts to watch.
   *
   * @param limits - how long is too long while loading and while training
   */
  constructor(limits: { loadStallMs: number; stallMs: number }) {
    this.#limitMs = limits.loadStallMs;
    this.#timer = setInterval(() => this.#check(), Math.min(limits.stallMs, limits.loadStallMs) / CHECKS_PER_LIMIT);
  }

  /** Aborts with a `TrainingStalledError`. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /**
   * Something got done.
   *
   * @param limitMs - from now on this long is too long
   */
  moved(limitMs: number): void {
    this.#limitMs = limitMs;
    this.#movedAt = performance.now();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #check(): void {
    const stoodMs = performance.now() - this.#movedAt;
    if (stoodMs < this.#limitMs) return;
    const seconds = Math.round(stoodMs / 1000);
    this.#controller.abort(
      new TrainingStalledError(
        `The trainer made no step for ${seconds} s and was stopped. Look at the GPU of this pod; on a very slow machine raise pod.stall in temporal.yaml.`,
      ),
    );
    this.stop();
  }
}
