import type { Client, WorkflowExecutionDescription } from '@temporalio/client';
import { InvalidRequestError } from '../common/errors.ts';
import { workflowIdOf } from '../common/style-trainings.ts';
import type { TrainStyleMemo } from '../common/types.ts';
import type { JobMessage } from './envelope.ts';

/** So many tasks a training remembers of those before it. */
const MAX_EARLIER_TASKS = 50;

/**
 * Thrown when a message without a task id comes a second time, and the style was trained by such a message before its newest
 * task: it may be a new order, which must not be lost, or one that was done, which must not be trained over the newer one.
 */
export class UnclearRepeatError extends InvalidRequestError {}

/**
 * Reads what a training remembers: its own task and those of the style before it.
 *
 * @param training - the newest of its style, or null when there is none
 */
export function rememberedBy(training: WorkflowExecutionDescription | null): Partial<TrainStyleMemo> {
  return training?.memo ?? {};
}

/**
 * Makes the memo of a style's next training.
 *
 * @param taskId - its task
 * @param newest - what the newest training so far remembers
 */
export function memoAfter(taskId: string, newest: Partial<TrainStyleMemo>): TrainStyleMemo {
  const before = newest.taskId === undefined ? [] : [newest.taskId, ...(newest.earlierTaskIds ?? [])];
  return { taskId, earlierTaskIds: before.slice(0, MAX_EARLIER_TASKS) };
}

/**
 * Tells whether Temporal's list of trainings has a task. It knows what the newest training does not remember: tasks from before
 * memos held earlier ones, and those after a training that was reset. It lags behind, so memos come first.
 *
 * @param client - of our namespace
 * @param job - the task and its style
 */
export async function isListed(client: Client, { styleId, taskId }: JobMessage): Promise<boolean> {
  const trainings = client.workflow.list({ query: `WorkflowId = '${workflowIdOf(styleId)}'` });
  for await (const { memo } of trainings) if (memo?.['taskId'] === taskId) return true;
  return false;
}
