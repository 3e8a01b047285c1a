import { setTimeout as sleep } from 'node:timers/promises';
import { NativeConnection } from '@temporalio/worker';
import type { TemporalConfig } from '../common/config.ts';
import type { Logger } from '../common/logger.ts';

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;

/**
 * Connects to Temporal; waits for a server that is not up yet.
 *
 * @param config - how to reach it
 * @param logger - told about each failed try
 * @param signal - ends the waiting
 */
export async function connectToTemporal(
  config: TemporalConfig,
  logger: Logger,
  signal: AbortSignal,
): Promise<NativeConnection> {
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(pauseMs * 2, LONGEST_PAUSE_MS)) {
    try {
      return await NativeConnection.connect(config.connection);
    } catch (error) {
      signal.throwIfAborted();
      logger.warn({ err: error, address: config.address, retryMs: pauseMs }, 'Temporal can not be reached yet');
      await sleep(pauseMs, undefined, { signal });
    }
  }
}
