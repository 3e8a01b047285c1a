import { setTimeout as sleep } from 'node:timers/promises';
import { WorkflowFailedError } from '@temporalio/client';
import type { WorkflowHandle } from '@temporalio/client';
import { ApplicationFailure, defaultPayloadConverter } from '@temporalio/common';
import type { Progress } from '../../cli/progress.ts';
import type { TrainProgress } from '../../common/activity-types.ts';
import type { TrainStatus, TrainStyleResult } from '../../common/types.ts';

const POLL_INTERVAL_MS = 300;

/** What the demo shows of a job. */
export interface JobEvents {
  /** The phase, or the reason for a wait, has changed. */
  onPhase(phase: string, reason: string | null): void;
  onProgress(progress: Progress): void;
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
  let shown = '';
  let last = null as Progress | null;
  for (;;) {
    signal.throwIfAborted();
    const seen = await look(handle);
    if (seen !== null) {
      // The last heartbeat of a chunk comes before its last step: the status knows that all are done.
      if (last !== null && last.epoch < last.totalEpochs && seen.status.epoch === last.totalEpochs) {
        last = { ...last, epoch: last.totalEpochs, loss: seen.status.loss ?? last.loss, remainingSeconds: 0 };
        events.onProgress(last);
      }
      const { phase, reason } = seen.status;
      const text = `${phase} ${reason ?? ''}`;
      if (text !== shown) events.onPhase(phase, reason);
      shown = text;
      if (seen.progress !== null) events.onProgress((last = seen.progress));
      if (!seen.running) return resultOf(handle);
    }
    await sleep(POLL_INTERVAL_MS, undefined, { signal });
  }
}

async function look(
  handle: WorkflowHandle,
): Promise<{ running: boolean; status: TrainStatus; progress: Progress | null } | null> {
  try {
    const [description, status] = await Promise.all([handle.describe(), handle.query<TrainStatus>('status')]);
    const running = description.status.name === 'RUNNING';
    for (const { activityType, heartbeatDetails } of description.raw.pendingActivities ?? []) {
      const payload = heartbeatDetails?.payloads?.[0];
      if (activityType?.name !== 'trainEpochChunk' || !payload) continue;
      return { running, status, progress: progressOf(defaultPayloadConverter.fromPayload<TrainProgress>(payload)) };
    }
    return { running, status, progress: null };
  } catch {
    // The bridge has not started the workflow yet, or no worker answers queries at the moment.
    return null;
  }
}

function progressOf(beat: TrainProgress): Progress | null {
  // Before its first step a chunk has measured nothing yet.
  if (beat.stepsPerSecond === 0) return null;
  return {
    epoch: (beat.step / beat.totalSteps) * beat.totalEpochs,
    totalEpochs: beat.totalEpochs,
    loss: beat.loss,
    stepsPerSecond: beat.stepsPerSecond,
    remainingSeconds: beat.estimatedSeconds,
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
