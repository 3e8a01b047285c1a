import { condition } from '@temporalio/workflow';
import { defaultEpochs } from '../common/training-config.ts';
import type { NotifyInput } from '../common/activity-types.ts';
import type { TrainStatus, TrainStyleInput } from '../common/types.ts';
import type { Calls } from './calls.ts';
import { jobFailureOf } from './failures.ts';
import type { JobFailure } from './failures.ts';

/** Temporal tries this long by itself before the workflow shows why it waits; then for longer each time. */
const FIRST_WINDOW_MS = 10_000;
const LONGEST_WINDOW_MS = 3_600_000;
/** A late progress notice must not arrive after the final one. */
const PROGRESS_DRAIN_MS = 5_000;

/** Notices about one job to its backend. */
export class Backend {
  readonly #calls: Calls;
  readonly #input: TrainStyleInput;
  #progressInFlight = 0;

  constructor(calls: Calls, input: TrainStyleInput) {
    this.#calls = calls;
    this.#input = input;
  }

  /**
   * Tells how far the job is, without waiting for an answer and without ever failing.
   *
   * @param estimatedSeconds - time left by the speed measured so far; null before any was
   */
  tellProgress(status: Readonly<TrainStatus>, estimatedSeconds: number | null): void {
    const { styleId, taskId, webhookOrigin, parameters, images } = this.#input;
    this.#progressInFlight += 1;
    const done = () => {
      this.#progressInFlight -= 1;
    };
    this.#calls
      .notifyProgress(
        { summary: `progress: ${status.phase}` },
        {
          kind: 'progress',
          styleId,
          taskId,
          webhookOrigin,
          currentEpoch: status.epoch,
          totalEpochs: status.totalEpochs ?? parameters.epochs ?? defaultEpochs(images.length),
          estimatedSeconds,
        },
      )
      .then(done, done);
  }

  /**
   * Delivers a final notice, for days if need be.
   *
   * @param notice - `complete` or `failed`
   * @param waiting - told why the notice is not delivered yet
   * @returns null when the backend took it, else why it never will
   */
  async deliver(notice: NotifyInput, waiting: (failure: JobFailure) => void): Promise<JobFailure | null> {
    if (this.#progressInFlight > 0) await condition(() => this.#progressInFlight === 0, PROGRESS_DRAIN_MS);
    const summary = notice.kind === 'failed' ? `failed: ${notice.errorCode}` : notice.kind;
    let leftMs = this.#input.settings.limits.notify.scheduleToCloseMs ?? Infinity;
    for (let windowMs = FIRST_WINDOW_MS; ; windowMs = Math.min(windowMs * 3, LONGEST_WINDOW_MS)) {
      const thisWindowMs = Math.min(windowMs, leftMs);
      try {
        await this.#calls.notify({ summary, scheduleToCloseTimeout: thisWindowMs }, notice);
        return null;
      } catch (error) {
        const failure = jobFailureOf(error);
        leftMs -= thisWindowMs;
        if (!failure.retryable || leftMs <= 0) return failure;
        waiting(failure);
      }
    }
  }
}
