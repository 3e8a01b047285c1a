import type { NativeConnection } from '@temporalio/worker';
import { runBridge } from '../bridge/run-bridge.ts';
import type { Config, Role, TemporalConfig } from '../common/config.ts';
import { configSecrets, createLogger } from '../common/logger.ts';
import type { Logger } from '../common/logger.ts';
import { runControlWorker } from './control-worker.ts';
import type { RoleDependencies } from './control-worker.ts';
import { runPodWorker } from './pod-worker.ts';
import type { PodWorkerDependencies } from './pod-worker.ts';
import { installRuntime } from './runtime.ts';
import { connectToTemporal } from './temporal-connection.ts';

/** What the role `pod` trains with. */
export type PodParts = Pick<PodWorkerDependencies, 'trainer' | 'resolveBaseModel'>;

/** What {@link runWorker} needs. */
export interface RunWorkerOptions {
  roles: readonly Role[];
  /** Loaded with these roles. */
  config: Config;
  /** Ends all roles; those with work in hand get the time that the configuration gives them. */
  signal: AbortSignal;
  /** Ends all roles as soon as the pod holds no job; of no effect without the role `pod`. */
  drain: AbortSignal;
  /** Makes what the role `pod` trains with; not called for other roles. */
  pod: (logger: Logger) => PodParts;
  /** Default: JSON lines on standard output, without secrets. */
  logger?: Logger;
  /** Called when a role takes work. */
  onReady?: (role: Role) => void;
}

/**
 * Runs any mix of roles in this process until the signal. When one breaks, the others are stopped too. The caller exits
 * the process afterwards, whatever may still be running in it.
 *
 * @throws whatever broke a role
 */
export async function runWorker(options: RunWorkerOptions): Promise<void> {
  const { roles, config, onReady = () => undefined } = options;
  const logger = options.logger ?? createLogger({ level: config.logLevel, secrets: configSecrets(config) });
  const broken = new AbortController();
  const signal = AbortSignal.any([options.signal, broken.signal]);
  installRuntime(logger);
  const connection = roles.some((role) => role !== 'bridge')
    ? await connectUnlessAborted(config.temporal, logger, AbortSignal.any([signal, options.drain]))
    : null;
  const runs = roles.map(async (role) => {
    const roleLogger = logger.child({ role });
    const ready = () => {
      roleLogger.info('ready');
      onReady(role);
    };
    try {
      if (role === 'bridge') await runBridge(config, { logger: roleLogger, signal, onReady: ready });
      if (role === 'bridge' || connection === null) return;
      const deps: RoleDependencies = { connection, logger: roleLogger, signal, onReady: ready };
      if (role === 'control') await runControlWorker(config, deps);
      else await runPodWorker(config, { ...deps, drain: options.drain, ...options.pod(roleLogger) });
    } catch (error) {
      roleLogger.fatal({ err: error }, 'this role broke: the process ends');
      throw error;
    } finally {
      broken.abort();
    }
  });
  const outcomes = await Promise.allSettled(runs);
  await connection?.close().catch((error: unknown) => logger.debug({ err: error }, 'the connection was still in use'));
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}

async function connectUnlessAborted(
  config: TemporalConfig,
  logger: Logger,
  signal: AbortSignal,
): Promise<NativeConnection | null> {
  try {
    return await connectToTemporal(config, logger, signal);
  } catch (error) {
    if (signal.aborted) return null;
    throw error;
  }
}
