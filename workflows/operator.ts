import { setHandler, workflowInfo } from '@temporalio/workflow';
import { giveUpSignal, pauseTrainingSignal, resumeTrainingSignal, retryNowSignal } from './messages.ts';

/** What operators asked for. */
export class Operator {
  #paused = false;
  #asked = false;
  #answer: 'retry' | 'give-up' | null = null;

  /**
   * Listens to the operators' signals. Those that a reset to the first workflow task re-applies are old and ignored.
   *
   * @param pausing - called after each wish to pause or to go on, with whether the job shall pause
   */
  constructor(pausing: (paused: boolean) => void) {
    const firstTaskLength = workflowInfo().historyLength;
    const listen = (effect: () => void) => () => {
      if (workflowInfo().historyLength <= firstTaskLength) return;
      effect();
    };
    const pause = (paused: boolean) => () => {
      this.#paused = paused;
      pausing(paused);
    };
    setHandler(pauseTrainingSignal, listen(pause(true)));
    setHandler(resumeTrainingSignal, listen(pause(false)));
    setHandler(
      retryNowSignal,
      listen(() => this.#take('retry')),
    );
    setHandler(
      giveUpSignal,
      listen(() => this.#take('give-up')),
    );
  }

  /** True from `pauseTraining` to `resumeTraining`. */
  get paused(): boolean {
    return this.#paused;
  }

  /** What the operator answered since {@link ask}, or null. */
  get answer(): 'retry' | 'give-up' | null {
    return this.#answer;
  }

  /** Starts to wait for `retryNow` or `giveUp`: earlier ones do not count. */
  ask(): void {
    this.#asked = true;
    this.#answer = null;
  }

  #take(answer: 'retry' | 'give-up'): void {
    if (!this.#asked) return;
    this.#asked = false;
    this.#answer = answer;
  }
}
