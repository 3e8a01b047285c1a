import { rm } from 'node:fs/promises';
import { Worker } from '@temporalio/worker';
import type { NativeConnection, WorkerOptions } from '@temporalio/worker';
import { createControlActivities, createPicturesActivities } from '../activities/index.ts';
import { createBackendClient } from '../activities/backend-webhook.ts';
import { requireSection } from '../common/config.ts';
import type { Config } from '../common/config.ts';
import type { Logger } from '../common/logger.ts';
import { picturesQueue } from '../common/pictures-queue.ts';
import { checkStoreAtStart, storeCheck } from './check-store.ts';
import { jobLogInterceptor } from './job-log.ts';
import { createObjectStore } from './object-store.ts';
import { runUntilAborted, unlessAborted } from './run-until-aborted.ts';
import { openScratch } from './scratch.ts';
import { bundleWorkflows } from './workflow-bundle.ts';

/** Notices in flight may finish; anything longer is repeated by another worker. */
const SHUTDOWN_GRACE_MS = 3_000;
const SHUTDOWN_FORCE_MS = 8_000;

/** Jobs whose pictures are looked at side by side: each may need 1 GB of disk, and of memory where a picture is vast. */
const PICTURES_SLOTS = 4;
/** The SDK's own choice would send heartbeats only shortly before the time limit. */
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
  const scratch = await openScratch(config.workDirectory, 'control');
  const { bucket, keepFinalCheckpoints, endpoint, fileUriRoot } = storage;
  const inBucket = { store, bucket, uriScheme: uriScheme(endpoint) };
  const common: Omit<WorkerOptions, 'taskQueue'> = {
    connection: deps.connection,
    namespace: config.temporal.namespace,
    interceptors: { activity: [jobLogInterceptor(null)] },
    maxHeartbeatThrottleInterval: HEARTBEAT_THROTTLE_MS,
    shutdownForceTime: SHUTDOWN_FORCE_MS,
  };
  try {
    const [workflowBundle] = await unlessAborted(
      deps.signal,
      Promise.all([bundleWorkflows(deps.logger), checkStoreAtStart(storeCheck(store, bucket), deps.logger)]),
    );
    const control = await Worker.create({
      ...common,
      taskQueue: config.queues.control,
      workflowBundle,
      activities: createControlActivities({ ...inBucket, keepFinalCheckpoints, backend }),
      shutdownGraceTime: SHUTDOWN_GRACE_MS,
    });
    const pictures = await Worker.create({
      ...common,
      taskQueue: picturesQueue(config.queues.control),
      activities: createPicturesActivities({
        ...inBucket,
        scratch,
        imageRules: { endpoint, fileUriRoot },
        ...config.training,
      }),
      maxConcurrentActivityTaskExecutions: PICTURES_SLOTS,
      shutdownGraceTime: 0,
    });
    await runUntilAborted([control, pictures], deps);
  } catch (error) {
    if (!deps.signal.aborted) throw error;
  } finally {
    store.close();
    await backend.close();
    await rm(scratch, { recursive: true, force: true });
  }
}

function uriScheme(endpoint: string | null): 's3' | 'gs' {
  return endpoint !== null && new URL(endpoint).hostname === 'storage.googleapis.com' ? 'gs' : 's3';
}
