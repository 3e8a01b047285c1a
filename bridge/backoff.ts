/** Pauses that double from try to try, with a fifth of jitter so that several bridges do not knock together. */
export class Backoff {
  readonly #firstMs: number;
  readonly #longestMs: number;
  #tries = 0;

  constructor(firstMs: number, longestMs: number) {
    this.#firstMs = firstMs;
    this.#longestMs = longestMs;
  }

  /** Length of the next pause. */
  nextMs(): number {
    const pauseMs = Math.min(this.#longestMs, this.#firstMs * 2 ** this.#tries);
    this.#tries++;
    return Math.round(pauseMs * (0.8 + Math.random() * 0.2));
  }

  /** Starts over with the first pause. */
  reset(): void {
    this.#tries = 0;
  }
}
