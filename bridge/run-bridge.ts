import { setTimeout as sleep } from 'node:timers/promises';
import { Client, Connection } from '@temporalio/client';
import type { ConsumeMessage } from 'amqplib';
import { requireSection } from '../common/config.ts';
import type { Config } from '../common/config.ts';
import { toBrushworkError } from '../common/errors.ts';
import type { BrushworkError } from '../common/errors.ts';
import { faultPoint } from '../common/fault-point.ts';
import { jobLogger, reasonOf } from '../common/logger.ts';
import type { Logger } from '../common/logger.ts';
import { Backoff } from './backoff.ts';
import { runSession } from './consumer.ts';
import { firstSeenAtMs } from './dead-letter.ts';
import { parseJobMessage } from './envelope.ts';
import { TrainingStarter } from './start-training.ts';
import type { StartOutcome } from './start-training.ts';
import { TemporalUnavailableError } from './temporal-errors.ts';

/** How long the bridge waits for others. */
export interface BridgeTiming {
  /** Longest time that a message is held while Temporal is down; far below RabbitMQ's `consumer_timeout` of 30 min. */
  holdMs: number;
  /** One call to Temporal. */
  callMs: number;
  /** Time that starts in hand get when the bridge is asked to stop. */
  drainMs: number;
  /** Longest pause between two tries of anything. */
  longestPauseMs: number;
}

const DEFAULT_TIMING: BridgeTiming = { holdMs: 300_000, callMs: 10_000, drainMs: 10_000, longestPauseMs: 15_000 };
const FIRST_PAUSE_MS = 250;

/** A session that lived this long was healthy: the next reconnect is tried at once again. */
const HEALTHY_SESSION_MS = 10_000;

/** What a bridge needs beside its configuration. */
export interface BridgeDependencies {
  logger: Logger;
  /** Ends the bridge: no more messages are taken, those in hand are finished. */
  signal: AbortSignal;
  /** Default: 5 min, 10 s, 10 s, 15 s. */
  timing?: Partial<BridgeTiming>;
  /** Called each time messages begin to flow. */
  onReady?: () => void;
}

/**
 * Turns job messages into `trainStyle` workflows until the signal. Outages of RabbitMQ and Temporal are waited for.
 *
 * @param config - loaded with the role `bridge`
 * @param dependencies - see {@link BridgeDependencies}
 * @throws ConfigError when the configuration was loaded without the role `bridge`
 */
export async function runBridge(config: Config, dependencies: BridgeDependencies): Promise<void> {
  const rabbitmq = requireSection(config, 'rabbitmq');
  const { logger, signal, onReady = () => undefined } = dependencies;
  const timing = { ...DEFAULT_TIMING, ...dependencies.timing };
  // Without the client's own retries, whose timers throw where nobody can catch once the connection is closed: a start is
  // tried again here anyway.
  const connection = Connection.lazy({ ...config.temporal.connection, interceptors: [] });
  const client = new Client({ connection, namespace: config.temporal.namespace });
  const starter = new TrainingStarter(client, config, logger, timing.callMs);
  const backoff = new Backoff(FIRST_PAUSE_MS, timing.longestPauseMs);
  const handle = (message: ConsumeMessage, sessionSignal: AbortSignal) =>
    handleMessage(message, { starter, logger, timing, signal: sessionSignal });
  try {
    while (!signal.aborted) {
      // With Temporal down, messages wait in the queue, where they can be seen, and not in our hands.
      if (await starter.isReachable()) {
        const startedAtMs = performance.now();
        const ready = () => {
          logger.info({ queue: rabbitmq.queue, prefetch: rabbitmq.prefetch }, 'waiting for job messages');
          onReady();
        };
        const end = await runSession({ rabbitmq, handle, logger, signal, drainMs: timing.drainMs, onReady: ready });
        if (end.reason === 'stopped') break;
        if (performance.now() - startedAtMs >= HEALTHY_SESSION_MS) backoff.reset();
        logger.warn({ reason: reasonOf(end.error) }, 'stopped taking messages; trying again');
      }
      await sleep(backoff.nextMs(), undefined, { signal }).catch(() => undefined);
    }
  } finally {
    await connection.close();
  }
  logger.info('bridge stopped');
}

interface HandleContext {
  starter: TrainingStarter;
  logger: Logger;
  timing: BridgeTiming;
  signal: AbortSignal;
}

/** Resolves with null once Temporal has the job, or with the reason why the message can't be processed. */
async function handleMessage(message: ConsumeMessage, context: HandleContext): Promise<BrushworkError | null> {
  let logger = context.logger;
  try {
    const job = parseJobMessage(message.content);
    logger = jobLogger(logger, job);
    if (job.unknownFields.length > 0) logger.warn({ fields: job.unknownFields }, 'ignored unknown fields of a message');
    await faultPoint('bridge:received', job.taskId);
    const { redelivered } = message.fields;
    const outcome = await whenPossible((starter) => starter.start(job, redelivered), { ...context, logger });
    await faultPoint('bridge:started', job.taskId);
    logger.info({ images: job.images.length, redelivered }, OUTCOME_TEXTS[outcome]);
    return null;
  } catch (error) {
    if (error instanceof TemporalUnavailableError || context.signal.aborted) throw error;
    const refusal = toBrushworkError(error);
    // A refusal explains itself; only what nobody foresaw needs its stack.
    const details = refusal.code === 'INTERNAL' ? { err: refusal } : { reason: refusal.message };
    logger.error({ code: refusal.code, ...details }, 'message refused: it goes to the dead queue');
    await tellBackend(message, refusal, { ...context, logger });
    return refusal;
  }
}

/** The message goes to the dead queue also where the backend can't be told. */
async function tellBackend(message: ConsumeMessage, refusal: BrushworkError, context: HandleContext): Promise<void> {
  const { logger, signal } = context;
  const firstSeenMs = firstSeenAtMs(message);
  try {
    const isTold = await whenPossible((starter) => starter.tellRefusal(message.content, refusal, firstSeenMs), context);
    if (isTold) logger.info('the backend is told that the message was refused');
  } catch (error) {
    if (error instanceof TemporalUnavailableError || signal.aborted) throw error;
    logger.error({ err: error }, 'the backend can not be told that the message was refused');
  }
}

const OUTCOME_TEXTS: Record<StartOutcome, string> = {
  started: 'training started',
  duplicate: 'duplicate message: the job is known already',
  'ran before': 'duplicate message: this task has run before, and another one of the style since',
};

/** Tries until Temporal takes the call, or for as long as a message may be held. */
async function whenPossible<Result>(
  call: (starter: TrainingStarter) => Promise<Result>,
  context: HandleContext,
): Promise<Result> {
  const { starter, logger, timing, signal } = context;
  const giveUpAtMs = performance.now() + timing.holdMs;
  const backoff = new Backoff(FIRST_PAUSE_MS, timing.longestPauseMs);
  for (;;) {
    try {
      return await call(starter);
    } catch (error) {
      signal.throwIfAborted();
      const pauseMs = backoff.nextMs();
      if (!(error instanceof TemporalUnavailableError) || performance.now() + pauseMs > giveUpAtMs) throw error;
      logger.warn({ reason: reasonOf(error), retryMs: pauseMs }, 'message held: trying again');
      await sleep(pauseMs, undefined, { signal });
    }
  }
}
