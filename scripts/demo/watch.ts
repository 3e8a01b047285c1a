import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { WorkflowFailedError } from '@temporalio/client';
import type { WorkflowHandle } from '@temporalio/client';
import { ApplicationFailure, defaultPayloadConverter } from '@temporalio/common';
import type { Progress } from '../../cli/progress.ts';
import type { TrainProgress } from '../../common/activity-types.ts';
import type { TrainStatus, TrainStyleResult } from '../../common/types.ts';

const POLL_INTERVAL_MS = 300;
const QUERY_LIMIT_MS = 1_000;
const FINAL_QUERIES = 10;
const START_LIMIT_MS = 120_000;

/** What the demo shows of a job. */
export interface JobEvents {
  /** The phase, or the reason for a wait, has changed. */
  onPhase(phase: string, reason: string | null): void;
  /** A step of training is done; called for each figure once. */
  onProgress(progress: Progress): void;
  /** All steps are done, but the pod is not: it draws, measures and writes what belongs to the last epoch. */
  onLastStep(): void;
}

/**
 * Follows a job to its end by what every operator can see: the query `status` and the heartbeats of its activities.
 *
 * @param handle - the workflow; it may not have been started yet
 * @param events - told what changes
 * @param signal - ends the watch
 * @returns the workflow's result
 * @throws Error with the job's error code and message when it failed
 */
export async function watchJob(
  handle: WorkflowHandle,
  events: JobEvents,
  signal: AbortSignal,
): Promise<TrainStyleResult> {
  const startMs = Date.now();
  let shown = '';
  let last = null as Progress | null;
  let isLastStepTold = false;
  let unanswered = 0;
  for (let seen = null as Sight | null; ; await sleep(POLL_INTERVAL_MS, undefined, { signal })) {
    signal.throwIfAborted();
    seen = (await look(handle)) ?? seen;
    if (seen === null) {
      if (Date.now() - startMs < START_LIMIT_MS) continue;
      throw new Error(`the bridge has not started the job within ${START_LIMIT_MS / 1000} s`);
    }
    const { status, progress, running } = seen;
    // The last heartbeat of a chunk comes before its last step: the status knows that all are done.
    if (progress === null && last !== null && last.epoch < last.totalEpochs && status?.epoch === last.totalEpochs) {
      last = { ...last, epoch: last.totalEpochs, loss: status.loss ?? last.loss, remainingSeconds: 0 };
      events.onProgress(last);
    }
    if (status !== null) {
      const text = `${status.phase} ${status.reason ?? ''}`;
      if (text !== shown) events.onPhase(status.phase, status.reason);
      shown = text;
    }
    // The heartbeats go on with the same figures while the pod draws.
    if (progress !== null && !isDeepStrictEqual(progress, last)) events.onProgress((last = progress));
    if (progress !== null && progress.epoch >= progress.totalEpochs && !isLastStepTold) {
      isLastStepTold = true;
      events.onLastStep();
    }
    // The last status says that all is done; a job that can't answer has a result all the same.
    if (!running && (status !== null || (unanswered += 1) > FINAL_QUERIES)) return resultOf(handle);
  }
}

/** What can be seen of a job at one moment. */
interface Sight {
  running: boolean;
  /** Null when no worker answers queries at the moment. */
  status: TrainStatus | null;
  /** Null while it does not train. */
  progress: Progress | null;
}

/** Null when the bridge has not started the workflow yet, or Temporal does not answer. */
async function look(handle: WorkflowHandle): Promise<Sight | null> {
  // An answer that got lost on its way would hold up the progress for ten seconds and more: the next one comes soon.
  const query = handle.client.withDeadline(Date.now() + QUERY_LIMIT_MS, () => handle.query<TrainStatus>('status'));
  const [description, status] = await Promise.all([handle.describe().catch(() => null), query.catch(() => null)]);
  if (description === null) return null;
  const running = description.status.name === 'RUNNING';
  for (const { activityType, heartbeatDetails } of description.raw.pendingActivities ?? []) {
    const payload = heartbeatDetails?.payloads?.[0];
    if (activityType?.name !== 'trainEpochChunk' || !payload) continue;
    return { running, status, progress: progressOf(defaultPayloadConverter.fromPayload<TrainProgress>(payload)) };
  }
  return { running, status, progress: null };
}

function progressOf({ step, totalSteps, totalEpochs, ...measured }: TrainProgress): Progress | null {
  const { loss, stepsPerSecond, estimatedSeconds } = measured;
  if (loss === null || stepsPerSecond === null || estimatedSeconds === null) return null;
  return {
    epoch: (step / totalSteps) * totalEpochs,
    totalEpochs,
    loss,
    stepsPerSecond,
    remainingSeconds: estimatedSeconds,
  };
}

async function resultOf(handle: WorkflowHandle): Promise<TrainStyleResult> {
  try {
    return (await handle.result()) as TrainStyleResult;
  } catch (error) {
    const cause = error instanceof WorkflowFailedError ? error.cause : error;
    const code = cause instanceof ApplicationFailure ? `${cause.type ?? 'INTERNAL'}: ` : '';
    throw new Error(`the job failed: ${code}${cause instanceof Error ? cause.message : String(cause)}`, {
      cause: error,
    });
  }
}
