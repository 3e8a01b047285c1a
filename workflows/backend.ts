import { CancellationScope, condition, patched } from '@temporalio/workflow';
import type { NotifyInput } from '../common/activity-types.ts';
import type { ActivityLimits, TrainStatus, TrainStyleInput } from '../common/types.ts';
import type { Calls } from './calls.ts';
import { jobFailureOf } from './failures.ts';
import type { JobFailure } from './failures.ts';
import { insistOn } from './insist-on.ts';

/** Time for the answer of a progress notice to get here, beyond the limit of its call. */
const PROGRESS_GRACE_MS = 1_000;

/** Notices about one job to its backend. */
export class Backend {
  readonly #calls: Calls;
  readonly #input: TrainStyleInput;
  /** Of each progress notice that is on its way. */
  readonly #progressScopes = new Set<CancellationScope>();

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
    const { styleId, taskId, webhookOrigin, expectedEpochs } = this.#input;
    const scope = new CancellationScope({ cancellable: true });
    this.#progressScopes.add(scope);
    const done = () => void this.#progressScopes.delete(scope);
    const notice = {
      kind: 'progress',
      ...{ styleId, taskId, webhookOrigin },
      currentEpoch: status.epoch,
      totalEpochs: status.totalEpochs ?? expectedEpochs,
      estimatedSeconds,
    } as const;
    const summary = `progress: ${status.phase}`;
    scope.run(() => this.#calls.notifyProgress({ summary }, notice)).then(done, done);
  }

  /** See {@link deliverNotice}; a progress notice that is still on its way must not arrive after the final one. */
  async deliver(notice: NotifyInput, waiting: (failure: JobFailure) => void): Promise<JobFailure | null> {
    const { notify, notifyProgress } = this.#input.settings.limits;
    const drainMs = notifyProgress.startToCloseMs + PROGRESS_GRACE_MS;
    const isTold = () => this.#progressScopes.size === 0;
    // What no control worker has taken by then would be sent together with the final notice.
    if (!isTold() && !(await condition(isTold, drainMs)) && patched('progress-called-off'))
      for (const scope of this.#progressScopes) scope.cancel();
    return deliverNotice(notice, { calls: this.#calls, limits: notify, waiting });
  }
}

/** What {@link deliverNotice} needs. */
export interface Delivery {
  calls: Calls;
  /** Of `notify`: the pauses between tries, and how long to try. */
  limits: ActivityLimits;
  /** Told why the notice is not delivered yet. */
  waiting: (failure: JobFailure) => void;
}

/**
 * Delivers a final notice, for days if need be.
 *
 * @param notice - `complete` or `failed`
 * @returns null when the backend took it, else why it never will
 */
export async function deliverNotice(
  notice: NotifyInput,
  { calls, limits, waiting }: Delivery,
): Promise<JobFailure | null> {
  const summary = notice.kind === 'failed' ? `failed: ${notice.errorCode}` : notice.kind;
  try {
    await insistOn(() => calls.notify({ summary }, notice), { limits, mayPass, waiting });
    return null;
  } catch (error) {
    return jobFailureOf(error);
  }
}

/** Only the backend itself can say that it will never take a notice; what our configuration forbids can be mended. */
function mayPass({ retryable, code }: JobFailure): boolean {
  return retryable || code === 'BLOCKED_TARGET';
}
