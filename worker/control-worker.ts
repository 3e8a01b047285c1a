import { Worker } from '@temporalio/worker';
import type { NativeConnection } from '@temporalio/worker';
import { createControlActivities } from '../activities/index.ts';
import { createBackendClient } from '../activities/backend-webhook.ts';
import { requireSection } from '../common/config.ts';
import type { Config } from '../common/config.ts';
import type { Logger } from '../common/logger.ts';
import { checkStore } from './check-store.ts';
import { jobLogInterceptor } from './job-log.ts';
import { createObjectStore } from './object-store.ts';
import { runUntilAborted, unlessAborted } from './run-until-aborted.ts';
import { bundleWorkflows } from './workflow-bundle.ts';

/** Notices in flight may finish; anything longer is repeated by another worker. */
const SHUTDOWN_GRACE_MS = 3_000;
const SHUTDOWN_FORCE_MS = 8_000;

/** The SDK's own choice would send them only shortly before the time limit. */
const HEARTBEAT_THROTTLE_MS = 2_000;

/** What a role needs beside its configuration. */
export interface RoleDependencies {
  connection: NativeConnection;
  logger: Logger;
  /** Ends the role. */
  signal: AbortSignal;
  /** Called once tasks are taken. */
  onReady: () => void;
}

/**
 * Runs workflows and the activities that need no pod, until the signal.
 *
 * @param config - loaded with the role `control`
 */
export async function runControlWorker(config: Config, deps: RoleDependencies): Promise<void> {
  const storage = requireSection(config, 'storage');
  const store = createObjectStore(storage);
  const backend = createBackendClient(config.backend);
  try {
    const [workflowBundle] = await unlessAborted(
      deps.signal,
      Promise.all([bundleWorkflows(deps.logger), checkStore(store, storage.bucket, deps.logger)]),
    );
    const worker = await Worker.create({
      connection: deps.connection,
      namespace: config.temporal.namespace,
      taskQueue: config.queues.control,
      workflowBundle,
      activities: createControlActivities({
        store,
        bucket: storage.bucket,
        keepFinalCheckpoints: storage.keepFinalCheckpoints,
        backend,
        uriScheme: uriScheme(storage.endpoint),
      }),
      interceptors: { activity: [jobLogInterceptor(null)] },
      maxHeartbeatThrottleInterval: HEARTBEAT_THROTTLE_MS,
      shutdownGraceTime: SHUTDOWN_GRACE_MS,
      shutdownForceTime: SHUTDOWN_FORCE_MS,
    });
    await runUntilAborted([worker], deps);
  } catch (error) {
    if (!deps.signal.aborted) throw error;
  } finally {
    store.close();
    await backend.close();
  }
}

function uriScheme(endpoint: string | null): 's3' | 'gs' {
  return endpoint !== null && new URL(endpoint).hostname === 'storage.googleapis.com' ? 'gs' : 's3';
}
