import { GracefulShutdownPeriodExpiredError } from '@temporalio/worker';
import type { Worker } from '@temporalio/worker';
import type { Logger } from '../common/logger.ts';

/**
 * Runs workers side by side until the signal, or until one of them breaks: then the others are stopped as well.
 *
 * @param workers - not running yet
 * @param deps - `onReady` is called once all of them take tasks
 */
export async function runUntilAborted(
  workers: readonly Worker[],
  deps: { logger: Logger; signal: AbortSignal; onReady: () => void },
): Promise<void> {
  const { logger, signal, onReady } = deps;
  const stop = () => {
    for (const worker of workers) if (worker.getState() === 'RUNNING') worker.shutdown();
  };
  const runs = workers.map(async (worker) => {
    try {
      await worker.run();
    } catch (error) {
      // What did not stop in time is lost with the process, as in any crash: the job goes on from its checkpoint.
      if (!(error instanceof GracefulShutdownPeriodExpiredError)) throw error;
      logger.warn({ taskQueue: worker.options.taskQueue }, 'some tasks did not stop in time');
    } finally {
      stop();
    }
  });
  signal.addEventListener('abort', stop, { once: true });
  if (signal.aborted) stop();
  onReady();
  try {
    const outcomes = await Promise.allSettled(runs);
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/**
 * Waits for `work`, but no longer than until the signal.
 *
 * @throws the signal's reason when it comes first
 */
export async function unlessAborted<Result>(signal: AbortSignal, work: Promise<Result>): Promise<Result> {
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  try {
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
