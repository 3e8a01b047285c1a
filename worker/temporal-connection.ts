import { setTimeout as sleep } from 'node:timers/promises';
import { NativeConnection } from '@temporalio/worker';
import type { TemporalConfig } from '../common/config.ts';
import { reasonOf } from '../common/logger.ts';
import type { Logger } from '../common/logger.ts';

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
const LONGEST_REASON = 200;

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
      const outage = { reason: connectFault(error), address: config.address, retryMs: pauseMs };
      logger.warn(outage, 'Temporal does not answer: trying again');
      logger.debug({ err: error }, 'how Temporal could not be reached');
      await sleep(pauseMs, undefined, { signal });
    }
  }
}

/**
 * Why a connection was not made, in few words: the SDK hands on its innards, and the reason is the last text in them.
 *
 * @param error - what `NativeConnection.connect` threw
 */
export function connectFault(error: unknown): string {
  const reason = reasonOf(error);
  const texts = [...reason.matchAll(/(?:message|error): "((?:[^"\\]|\\.)+)"/g)].map(([, text = '']) => text);
  return (texts.at(-1) ?? reason).slice(0, LONGEST_REASON);
}
