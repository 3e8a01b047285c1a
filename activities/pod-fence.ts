import { setTimeout as sleep } from 'node:timers/promises';
import { InternalError, PodLostError } from '../common/errors.ts';
import type { BrushworkError } from '../common/errors.ts';

const VACATED_CHECK_MS = 20;

/**
 * Stands between a pod's activities and everything they could change: only the job that holds the pod passes. Once a
 * hold is over, however it ended, nothing of that job is written any more.
 */
export class PodFence {
  #hold: { holdId: string; controller: AbortController } | null = null;
  readonly #inside = new Map<string, number>();

  /**
   * Lets a job in.
   *
   * @throws InternalError when another hold is still open: a pod has one slot
   */
  open(holdId: string): void {
    if (this.#hold !== null) {
      throw new InternalError(`This pod is held by ${this.#hold.holdId} and can't be held by ${holdId} as well.`);
    }
    this.#hold = { holdId, controller: new AbortController() };
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
    if (this.#hold?.holdId !== holdId) {
      throw new PodLostError('The pod is not held by this job any more. The job goes on elsewhere.');
    }
    return this.#hold.controller.signal;
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
    const deadline = Date.now() + limitMs;
    while (this.#inside.has(holdId) && Date.now() < deadline) await sleep(VACATED_CHECK_MS);
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
