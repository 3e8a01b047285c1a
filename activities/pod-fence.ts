import { setTimeout as sleep } from 'node:timers/promises';
import { InternalError, PodLostError } from '../common/errors.ts';
import type { BrushworkError } from '../common/errors.ts';

const VACATED_CHECK_MS = 20;

interface Hold {
  holdId: string;
  controller: AbortController;
  /** When the newest heartbeat that was accepted was sent, by a clock that is never set. */
  aliveAtMs: number;
}

/**
 * Stands between a pod's activities and everything they could change: only the job that holds the pod passes. Once a
 * hold is over, however it ended, nothing of that job is written any more.
 *
 * A hold is also over when no heartbeat was accepted for too long: another pod may have taken over. Each check looks at
 * the clock itself, since in a process that was frozen or blocked no timer has fired when its activities go on.
 */
export class PodFence {
  readonly #limitMs: number;
  #hold: Hold | null = null;
  #lastHoldId: string | null = null;
  readonly #inside = new Map<string, number>();

  /** @param limitMs - a hold without an accepted heartbeat for this long is over */
  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  /**
   * Lets a job in.
   *
   * @throws InternalError when another hold is still open: a pod has one slot; PodLostError for the hold that was here last,
   *   which a reset brings back: its files are gone
   */
  open(holdId: string): void {
    if (this.#hold !== null) {
      throw new InternalError(`This pod is held by ${this.#hold.holdId} and can't be held by ${holdId} as well.`);
    }
    if (holdId === this.#lastHoldId) {
      throw new PodLostError('The pod has cleared away what it had of this hold. The job goes on from the bucket.');
    }
    this.#lastHoldId = holdId;
    this.#hold = { holdId, controller: new AbortController(), aliveAtMs: performance.now() };
  }

  /**
   * A heartbeat was accepted.
   *
   * @param sentAtMs - when it was sent, by `performance.now()`: the answer may have been long on its way
   */
  accepted(holdId: string, sentAtMs: number): void {
    if (this.#hold?.holdId === holdId) this.#hold.aliveAtMs = sentAtMs;
  }

  /**
   * Ends a hold: its activities are aborted with `reason`. Idempotent.
   *
   * @param reason - what they shall fail with
   */
  close(holdId: string, reason: BrushworkError): void {
    if (this.#hold?.holdId !== holdId) return;
    this.#hold.controller.abort(reason);
    this.#hold = null;
  }

  /**
   * Aborts when the hold ends.
   *
   * @throws PodLostError when the pod is not held under this id (any more)
   */
  signalOf(holdId: string): AbortSignal {
    const hold = this.#hold;
    if (hold?.holdId !== holdId) {
      throw new PodLostError('The pod is not held by this job any more. The job goes on elsewhere.');
    }
    const silentMs = performance.now() - hold.aliveAtMs;
    if (silentMs <= this.#limitMs) return hold.controller.signal;
    const error = new PodLostError(`No heartbeat was accepted for ${Math.round(silentMs / 1000)} s: the pod gave up.`);
    this.close(holdId, error);
    throw error;
  }

  /**
   * Counts an activity of a hold while it runs.
   *
   * @returns the signal that aborts when the hold ends, and what to call at the activity's end
   * @throws PodLostError when the pod is not held under this id (any more)
   */
  enter(holdId: string): { signal: AbortSignal; leave: () => void } {
    const signal = this.signalOf(holdId);
    this.#inside.set(holdId, (this.#inside.get(holdId) ?? 0) + 1);
    const leave = () => {
      const count = this.#inside.get(holdId) ?? 0;
      if (count > 1) this.#inside.set(holdId, count - 1);
      else this.#inside.delete(holdId);
    };
    return { signal, leave };
  }

  /**
   * Waits until the activities of a hold that was closed have come to rest.
   *
   * @param limitMs - and not longer
   */
  async vacated(holdId: string, limitMs: number): Promise<void> {
    const deadlineMs = performance.now() + limitMs;
    while (this.#inside.has(holdId) && performance.now() < deadlineMs) await sleep(VACATED_CHECK_MS);
  }

  /**
   * To be called before every write to the bucket.
   *
   * @throws PodLostError when the pod is not held under this id (any more)
   */
  check(holdId: string): void {
    this.signalOf(holdId);
  }
}
