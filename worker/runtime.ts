import { ApplicationFailure } from '@temporalio/common';
import { Runtime } from '@temporalio/worker';
import type { LogLevel, LogMetadata, Logger as TemporalLogger } from '@temporalio/worker';
import { isErrorCode } from '../common/errors.ts';
import type { Logger } from '../common/logger.ts';

type PinoLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error';

const PINO_LEVELS: Record<LogLevel, PinoLevel> = {
  TRACE: 'trace',
  DEBUG: 'debug',
  INFO: 'info',
  WARN: 'warn',
  ERROR: 'error',
};

/** Said at each start of a worker that is meant to be so, and of each hold whose job is over. */
const TRIVIA = [
  'No workflows registered',
  'No Nexus services registered',
  'Worker state changed',
  'Activity not found on completion',
];

/** The error code of a failure or of what caused it: pino shows only the class of a failure. */
function codeOf(error: unknown): string | null {
  if (!(error instanceof Error)) return null;
  return error instanceof ApplicationFailure && isErrorCode(error.type) ? error.type : codeOf(error.cause);
}

/** The SDK's own bookkeeping says nothing to a reader; the error goes where pino expects it, its code where one searches. */
function fieldsOf(meta: LogMetadata = {}): Record<string, unknown> {
  const fields: Record<string, unknown> = { ...meta };
  for (const name of ['sdkComponent', 'taskToken']) delete fields[name];
  if ('error' in fields) {
    const code = codeOf(fields['error']);
    if (code !== null) fields['code'] = code;
    fields['err'] = fields['error'];
    delete fields['error'];
  }
  return fields;
}

/**
 * Temporal's logger interface on top of ours.
 *
 * @param logger - the process's logger
 */
export function temporalLogger(logger: Logger): TemporalLogger {
  const write = (level: PinoLevel) => (message: string, meta?: LogMetadata) =>
    logger[TRIVIA.some((start) => message.startsWith(start)) ? 'debug' : level](fieldsOf(meta), message);
  return {
    log: (level, message, meta) => write(PINO_LEVELS[level])(message, meta),
    trace: write('trace'),
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
  };
}

/**
 * Prepares the SDK of this process; to be called once, before the first connection. Signals are left to the caller.
 *
 * @param logger - receives what the SDK has to say, its native part included
 */
export function installRuntime(logger: Logger): void {
  Runtime.install({
    logger: temporalLogger(logger.child({ component: 'temporal' })),
    telemetryOptions: { logging: { filter: { core: 'WARN', other: 'ERROR' }, forward: {} } },
    shutdownSignals: [],
  });
}
