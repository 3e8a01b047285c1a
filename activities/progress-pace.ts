import { Context } from '@temporalio/activity';

const CHECKS_PER_INTERVAL = 10;

/**
 * Sends progress notices at an even pace over all chunks of a job, however short they are: one at a time, never waited
 * for, and what the backend says to them changes nothing.
 */
export class ProgressPace {
  readonly #intervalMs: number;
  #holdId = '';
  #sentAtMs = 0;
  #sending = false;

  /** @param intervalMs - from one notice to the next */
  constructor(intervalMs: number) {
    this.#intervalMs = intervalMs;
  }

  /**
   * Sends notices from now on; the workflow has told of the job's start itself, so the first one is due later.
   *
   * @param holdId - the job's hold
   * @param notify - sends one
   * @returns `stop` ends it, and the notice under way
   */
  send(holdId: string, notify: (signal: AbortSignal) => Promise<void>): { stop: () => void } {
    const { log } = Context.current();
    if (this.#holdId !== holdId) {
      this.#holdId = holdId;
      this.#sentAtMs = performance.now();
    }
    const over = new AbortController();
    const timer = setInterval(() => {
      if (this.#sending || performance.now() - this.#sentAtMs < this.#intervalMs) return;
      this.#sending = true;
      this.#sentAtMs = performance.now();
      notify(over.signal)
        .catch((error: unknown) => {
          if (!over.signal.aborted) log.warn('progress notice was not taken', { reason: String(error) });
        })
        .finally(() => {
          this.#sending = false;
        });
    }, this.#intervalMs / CHECKS_PER_INTERVAL);
    return {
      stop: () => {
        clearInterval(timer);
        over.abort();
      },
    };
  }
}
