import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import path from 'node:path';
import { Worker } from '@temporalio/worker';
import type { WorkerOptions, WorkerTuner } from '@temporalio/worker';
import { createPodActivities } from '../activities/index.ts';
import { createBackendClient } from '../activities/backend-webhook.ts';
import type { BaseModel } from '../activities/dependencies.ts';
import { PodFence } from '../activities/pod-fence.ts';
import { PodRest } from '../activities/pod-rest.ts';
import { requireSection } from '../common/config.ts';
import type { Config } from '../common/config.ts';
import type { Trainer } from '../common/trainer.ts';
import type { RoleDependencies } from './control-worker.ts';
import { jobLogInterceptor } from './job-log.ts';
import { checkStoreAtStart, storeCheck } from './check-store.ts';
import { createObjectStore } from './object-store.ts';
import { once } from './once.ts';
import { podCheck } from './pod-check.ts';
import { PodSlot } from './pod-slot.ts';
import { runUntilAborted, unlessAborted } from './run-until-aborted.ts';
import { openScratch } from './scratch.ts';
import { VERSION } from './version.ts';

/** A chunk, the checkpoint of the one before, and room for what is just being cancelled. */
const PRIVATE_SLOTS = 4;

/** There where the driver has found a GPU. */
const NVIDIA_DEVICE = '/dev/nvidia0';

/** What a pod worker needs beside its configuration. */
export interface PodWorkerDependencies extends RoleDependencies {
  trainer: Trainer;
  /** Finds, and where need be fetches, the base model. */
  resolveBaseModel: () => Promise<BaseModel>;
  /** Takes the pod out of service: it ends once it holds no job. */
  drain: AbortSignal;
}

/**
 * Trains on this machine, one job at a time, until the signal or until it is drained. Two workers: one takes the hold from
 * the queue that all pods share, one does the work of the job that holds the pod, from a queue that only this process knows.
 *
 * @param config - loaded with the role `pod`
 */
export async function runPodWorker(config: Config, deps: PodWorkerDependencies): Promise<void> {
  const { connection, logger, trainer } = deps;
  const drained = new AbortController();
  const signal = AbortSignal.any([deps.signal, drained.signal]);
  const storage = requireSection(config, 'storage');
  const pod = requireSection(config, 'pod');
  const host = hostname();
  const queue = `brushwork-pod-${host}-${randomUUID()}`;
  const scratch = await openScratch(config.workDirectory, 'pod');
  const store = createObjectStore(storage);
  const backend = createBackendClient(config.backend);
  const runtime = once(() => trainer.runtime());
  const baseModel = once(deps.resolveBaseModel);
  const rest = new PodRest(pod.restMs);
  const activities = createPodActivities({
    pod: { host, queue },
    store,
    bucket: storage.bucket,
    keepCheckpoints: storage.keepCheckpoints,
    backend,
    trainer,
    runtime,
    baseModel,
    fence: new PodFence(pod.fenceMs),
    rest,
    jobDirectory: (holdId) => path.join(scratch, holdId),
    imageRules: { endpoint: storage.endpoint, fileUriRoot: storage.fileUriRoot },
    recipe: config.training.recipe,
    instancePrompt: config.training.instancePrompt,
    previews: config.previews.enabled ? config.previews : null,
    progressIntervalMs: config.backend.progressIntervalMs,
    timing: pod,
    version: VERSION,
  });
  const checkStore = storeCheck(store, storage.bucket);
  const slot = new PodSlot(podCheck({ scratch, trainer, rest, checkStore, ...pod }), logger);
  const drain = async () => {
    logger.info('draining');
    await slot.drain();
    if (!deps.signal.aborted) logger.info('drained');
    drained.abort();
  };
  const common: Omit<WorkerOptions, 'taskQueue'> = {
    connection,
    namespace: config.temporal.namespace,
    identity: `${process.pid}@${host}`,
    interceptors: { activity: [jobLogInterceptor(host)] },
    // A cancel arrives in the answer to a heartbeat: this is how long it may take.
    maxHeartbeatThrottleInterval: pod.heartbeatThrottleMs,
    shutdownGraceTime: 0,
    shutdownForceTime: pod.shutdownMs,
  };
  const onDrain = () => void drain();
  deps.drain.addEventListener('abort', onDrain, { once: true });
  if (deps.drain.aborted) onDrain();
  try {
    // A pod takes a job only when it can train one.
    const [{ device, gpuName, torch }, { name }] = await unlessAborted(
      signal,
      Promise.all([runtime(), baseModel(), checkStoreAtStart(checkStore, logger)]),
    );
    if (device === 'cpu' && config.trainer.device === 'auto' && existsSync(NVIDIA_DEVICE)) {
      logger.warn(
        'this machine has a GPU that is not used: this build of the trainer is for the CPU, see docs/operations.md',
      );
    }
    const { holdPod, ...work } = activities;
    const shared = await Worker.create({
      ...common,
      taskQueue: config.queues.pods,
      activities: { holdPod },
      maxConcurrentActivityTaskPolls: 1,
      tuner: tunerOf(slot),
    });
    const own = await Worker.create({
      ...common,
      taskQueue: queue,
      activities: work,
      maxConcurrentActivityTaskExecutions: PRIVATE_SLOTS,
    });
    logger.info({ pod: host, queue, device, gpu: gpuName, torch, baseModel: name }, 'pod takes jobs');
    await runUntilAborted([own, shared], { ...deps, signal });
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    deps.drain.removeEventListener('abort', onDrain);
    await trainer.kill();
    store.close();
    await backend.close();
    await rm(scratch, { recursive: true, force: true });
  }
}

/** A worker that only takes activities, as the slot says. */
function tunerOf(slot: PodSlot): WorkerTuner {
  const unused = { type: 'fixed-size', numSlots: 1 } as const;
  return {
    activityTaskSlotSupplier: slot,
    workflowTaskSlotSupplier: unused,
    localActivityTaskSlotSupplier: unused,
    nexusTaskSlotSupplier: unused,
  };
}
