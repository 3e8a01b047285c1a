import type { NativeConnection } from '@temporalio/worker';
import { runBridge } from '../bridge/run-bridge.ts';
import type { Config, Role } from '../common/config.ts';
import type { Logger } from '../common/logger.ts';
import { runControlWorker } from './control-worker.ts';
import type { RoleDependencies } from './control-worker.ts';
import { runPodWorker } from './pod-worker.ts';
import type { PodWorkerDependencies } from './pod-worker.ts';
import { installRuntime } from './runtime.ts';
import { connectToTemporal } from './temporal-connection.ts';

/** What {@link runWorker} needs. */
export interface RunWorkerOptions {
  roles: readonly Role[];
  /** Loaded with these roles. */
  config: Config;
  logger: Logger;
  /** Ends all roles; those with work in hand get the time that the configuration gives them. */
  signal: AbortSignal;
  /** What the role `pod` trains with; not called for other roles. */
  pod: () => Pick<PodWorkerDependencies, 'trainer' | 'resolveBaseModel'>;
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
  const { roles, config, logger, onReady = () => undefined } = options;
  const broken = new AbortController();
  const signal = AbortSignal.any([options.signal, broken.signal]);
  installRuntime(logger);
  const needsWorker = roles.some((role) => role !== 'bridge');
  const connection = needsWorker ? await connectOrLeave(options, signal) : null;
  if (needsWorker && connection === null) return;
  const runs = roles.map(async (role) => {
    try {
      await runRole(role, { ...options, signal, onReady: () => onReady(role) }, connection, config);
    } catch (error) {
      logger.fatal({ err: error, role }, 'a role of this process broke');
      throw error;
    } finally {
      broken.abort();
    }
  });
  const outcomes = await Promise.allSettled(runs);
  await connection?.close().catch((error: unknown) => logger.debug({ err: error }, 'the connection was still in use'));
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}

async function connectOrLeave(options: RunWorkerOptions, signal: AbortSignal): Promise<NativeConnection | null> {
  try {
    return await connectToTemporal(options.config.temporal, options.logger, signal);
  } catch (error) {
    if (signal.aborted) return null;
    throw error;
  }
}

async function runRole(
  role: Role,
  options: Omit<RunWorkerOptions, 'onReady'> & { onReady: () => void },
  connection: NativeConnection | null,
  config: Config,
): Promise<void> {
  const logger = options.logger.child({ role });
  const { signal, onReady } = options;
  if (role === 'bridge') return runBridge(config, { logger, signal, onReady });
  if (connection === null) throw new Error('A worker role needs a connection.');
  const deps: RoleDependencies = { connection, logger, signal, onReady };
  return role === 'control' ? runControlWorker(config, deps) : runPodWorker(config, { ...deps, ...options.pod() });
}
