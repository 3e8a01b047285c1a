import { EventEmitter, once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ActivitySlotInfo, CustomSlotSupplier, SlotPermit, SlotReserveContext } from '@temporalio/worker';
import type { Logger } from '../common/logger.ts';

const RELEASED = 'released';
const RECHECK_MS = 5_000;

/**
 * The pod's only slot for a job. Temporal gets it, and asks for a job, only while the pod can train: a pod with a full disk or
 * without its GPU would take job after job and lose each of them, faster than the good pods finish theirs.
 */
export class PodSlot implements CustomSlotSupplier<ActivitySlotInfo> {
  readonly type = 'custom';
  readonly #findFault: () => Promise<string | null>;
  readonly #logger: Logger;
  readonly #recheckMs: number;
  readonly #events = new EventEmitter();
  #isTaken = false;
  /** Taken by a job, not by a request for one. */
  #isUsed = false;
  #isDraining = false;

  /**
   * @param findFault - why the pod can't train just now, in words; null when it can. Must not reject
   * @param logger - hears of a fault, and of its end
   * @param recheckMs - pause before a pod that could not train is looked at again
   */
  constructor(findFault: () => Promise<string | null>, logger: Logger, recheckMs = RECHECK_MS) {
    this.#findFault = findFault;
    this.#logger = logger;
    this.#recheckMs = recheckMs;
  }

  /** Waits until the slot is free and the pod can train; for ever while the pod drains. */
  async reserveSlot(_context: SlotReserveContext, signal: AbortSignal): Promise<SlotPermit> {
    while (this.#isTaken || this.#isDraining) await once(this.#events, RELEASED, { signal });
    this.#isTaken = true;
    try {
      await this.#untilFit(signal);
      signal.throwIfAborted();
      return {};
    } catch (error) {
      this.releaseSlot();
      throw error;
    }
  }

  /** For tasks that come without polling: a pod's never do. */
  tryReserveSlot(): null {
    return null;
  }

  markSlotUsed(): void {
    this.#isUsed = true;
  }

  /**
   * Lets no further job have the slot. Resolves once none has it. A request for a job may still be under way then: it ends with the
   * worker, to be shut down at once, and a job that it brings nevertheless goes elsewhere, as from any pod that leaves.
   */
  async drain(): Promise<void> {
    this.#isDraining = true;
    while (this.#isUsed) await once(this.#events, RELEASED);
  }

  releaseSlot(): void {
    this.#isUsed = false;
    this.#isTaken = false;
    this.#events.emit(RELEASED);
  }

  async #untilFit(signal: AbortSignal): Promise<void> {
    let told: string | null = null;
    for (;;) {
      const fault = await this.#findFault();
      if (fault === null) break;
      if (fault !== told) this.#logger.error({ fault }, 'pod takes no jobs');
      told = fault;
      await sleep(this.#recheckMs, undefined, { signal });
    }
    if (told !== null) this.#logger.info('pod takes jobs again');
  }
}
