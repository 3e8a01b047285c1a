import type { StepReport } from '../../common/trainer.ts';

/** Reports are sent at most this often: very fast steps would otherwise flood the pipe. */
const INTERVAL_MS = 100;

/** Gathers step reports and hands them on in order, none lost; a step that comes after a pause goes out at once. */
export class StepBatcher {
  readonly #send: (reports: StepReport[]) => void;
  #waiting: StepReport[] = [];
  #timer: NodeJS.Timeout | null = null;

  /** @param send - receives one or more reports, oldest first */
  constructor(send: (reports: StepReport[]) => void) {
    this.#send = send;
  }

  /** Takes one report. */
  push(report: StepReport): void {
    this.#waiting.push(report);
    if (this.#timer !== null) return;
    this.#sendWaiting();
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#sendWaiting();
    }, INTERVAL_MS);
  }

  /** Hands on what waits and stops the clock. */
  flush(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#sendWaiting();
  }

  #sendWaiting(): void {
    if (this.#waiting.length === 0) return;
    const reports = this.#waiting;
    this.#waiting = [];
    this.#send(reports);
  }
}
