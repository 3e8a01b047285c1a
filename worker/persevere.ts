import { setTimeout as sleep } from 'node:timers/promises';
import { reasonOf } from '../common/logger.ts';
import type { Logger } from '../common/logger.ts';

/** Tries in a row that bring nothing. */
export const ATTEMPTS = 6;
const FIRST_PAUSE_MS = 1_000;

/** Longest pause between two tries. */
export const MAX_PAUSE_MS = 30_000;

/** Something that another try may cure. */
export class PassingFault extends Error {
  readonly retryAfterMs: number | null;

  constructor(message: string, options: { cause?: unknown; retryAfterMs?: number | null } = {}) {
    super(message, { cause: options.cause });
    this.retryAfterMs = options.retryAfterMs ?? null;
  }
}

/** How {@link persevere} goes about it. */
export interface PersevereOptions {
  /** What is read, in the log. */
  name: string;
  /** Who does not deliver, in the log. */
  source: 'hub' | 'store';
  logger: Logger;
  signal: AbortSignal;
  /** First pause between two tries; it doubles. Default: a second. */
  firstPauseMs?: number;
  /** Whether another try may cure it. */
  isPassing: (error: unknown) => boolean;
  /** What is thrown instead of the last error once all tries were in vain. */
  giveUp: (error: unknown) => unknown;
}

/**
 * Tries until something works, or several tries in a row have brought nothing.
 *
 * @param attempt - one try; it says when it has got further than any before
 * @param options - see {@link PersevereOptions}
 * @returns what `attempt` returned
 */
export async function persevere<Result>(
  attempt: (onAdvance: () => void) => Promise<Result>,
  options: PersevereOptions,
): Promise<Result> {
  const { name, source, logger, signal, firstPauseMs = FIRST_PAUSE_MS, isPassing, giveUp } = options;
  for (let failures = 1; ; failures++) {
    signal.throwIfAborted();
    try {
      // A try that brought something is none in vain: a slow link gets as many as it needs.
      return await attempt(() => (failures = 0));
    } catch (error) {
      signal.throwIfAborted();
      if (!isPassing(error)) throw error;
      if (failures >= ATTEMPTS) throw giveUp(error);
      const backoffMs = Math.min(MAX_PAUSE_MS, firstPauseMs * 2 ** Math.max(0, failures - 1));
      const pauseMs = error instanceof PassingFault ? (error.retryAfterMs ?? backoffMs) : backoffMs;
      logger.warn({ file: name, reason: reasonOf(error), pauseMs }, `the ${source} did not deliver: trying again`);
      await sleep(pauseMs, undefined, { signal });
    }
  }
}
