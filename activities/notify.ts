import { Context } from '@temporalio/activity';
import type { ProgressNotice } from '../common/backend-client.ts';
import { CancelledError, WebhookUnavailableError } from '../common/errors.ts';
import { faultPoint } from '../common/fault-point.ts';
import type { NotifyInput } from '../common/activity-types.ts';
import { hasRunSince, newestTraining } from '../common/style-trainings.ts';
import type { TrainStyleMemo } from '../common/types.ts';
import type { ControlDependencies } from './dependencies.ts';
import { heartbeatDirectly } from './direct-heartbeat.ts';
import type { Standing } from './direct-heartbeat.ts';

const ASK_LIMIT_MS = 2_000;
/** An answer that is older says nothing any more: this process stood still meanwhile. */
const FRESH_MS = 2 * ASK_LIMIT_MS;

/** A progress notice in the backend's words; the time left is null before a step was measured. */
export function progressNotice(
  styleId: number,
  currentEpoch: number,
  totalEpochs: number,
  estimatedSeconds: number | null,
): ProgressNotice {
  const percent = totalEpochs === 0 ? 0 : Math.round((1000 * currentEpoch) / totalEpochs) / 10;
  return {
    style_id: styleId,
    progress: {
      current_epoch: currentEpoch,
      total_epochs: totalEpochs,
      progress_percent: percent,
      estimated_seconds: estimatedSeconds,
    },
  };
}

/** Tells the backend about a job; its errors say whether to try again. */
export async function notify(input: NotifyInput, deps: ControlDependencies): Promise<void> {
  if (input.kind === 'progress') {
    // A job that is about to send its final notice calls off what it had to say before.
    await checkIsWanted(['taken']);
    return send(input, deps);
  }
  await faultPoint('notify:begin', input.taskId);
  await checkIsWanted(['taken', 'cancelled']);
  if (input.kind === 'failed' && input.unlessTrainedSinceMs !== undefined) {
    await checkIsNotOvertaken(input.styleId, input.unlessTrainedSinceMs);
  }
  await send(input, deps);
  await faultPoint('notify:taken', input.taskId);
}

/**
 * A job that was reset while this notice was on its way will send one of its own, and a terminated one none: nobody
 * tells activities without heartbeats, so they ask.
 *
 * @param standings - with which the notice is sent
 * @throws CancelledError when the run has ended or does not want it any more, WebhookUnavailableError when Temporal does not answer: what can't be
 *   reported would be sent again
 */
async function checkIsWanted(standings: readonly Standing[]): Promise<void> {
  for (;;) {
    const askedAtMs = performance.now();
    const standing = await heartbeatDirectly(ASK_LIMIT_MS).catch((cause: unknown) => {
      throw new WebhookUnavailableError('Temporal does not answer, so the notice waits.', { cause });
    });
    if (!standings.includes(standing)) {
      throw new CancelledError('The job was reset, terminated or has moved on: this notice is not sent any more.');
    }
    if (performance.now() - askedAtMs < FRESH_MS) return;
  }
}

/**
 * A notice that names no task is taken for the end of the style's training: one about a refused message must come neither
 * in the midst of it nor after it.
 *
 * @throws CancelledError when the style has been in training since, WebhookUnavailableError when Temporal does not answer
 */
async function checkIsNotOvertaken(styleId: number, sinceMs: number): Promise<void> {
  const { client } = Context.current();
  const ask = () => newestTraining(client, styleId);
  const training = await client.withDeadline(Date.now() + ASK_LIMIT_MS, ask).catch((cause: unknown) => {
    throw new WebhookUnavailableError('Temporal does not answer, so the notice waits.', { cause });
  });
  if (training === null || !hasRunSince(training, sinceMs)) return;
  const { taskId } = (training.memo ?? {}) as Partial<TrainStyleMemo>;
  throw new CancelledError(
    `Style ${styleId} has been in training since the message was refused (task ${taskId ?? 'unknown'}), and the backend hears how that ends: this notice is not sent any more.`,
  );
}

async function send(input: NotifyInput, { backend }: ControlDependencies): Promise<void> {
  const signal = Context.current().cancellationSignal;
  const { styleId, webhookOrigin } = input;
  switch (input.kind) {
    case 'progress': {
      const { currentEpoch, totalEpochs, estimatedSeconds } = input;
      return backend.progress(
        webhookOrigin,
        progressNotice(styleId, currentEpoch, totalEpochs, estimatedSeconds),
        signal,
      );
    }
    case 'complete': {
      const notice = {
        style_id: styleId,
        model_path: input.modelUri,
        model_url: input.modelUri,
        training_metric: { loss: input.loss, epochs: input.epochs },
        metadata: { training_epochs: input.epochs, lora_rank: input.rank, lora_alpha: input.alpha },
      };
      return backend.complete(webhookOrigin, notice, input.webhookId, signal);
    }
    case 'failed': {
      const notice = { style_id: styleId, error_message: input.errorMessage, error_code: input.errorCode };
      return backend.failed(webhookOrigin, notice, input.webhookId, signal);
    }
  }
}
