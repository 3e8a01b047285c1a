import { WorkflowNotFoundError } from '@temporalio/client';
import type { Client, WorkflowExecutionDescription } from '@temporalio/client';

/** A workflow that has not ended; a paused one goes on some day. */
const OPEN_STATUSES: readonly string[] = ['RUNNING', 'PAUSED'];

/** The workflow id of a style: one training at a time, and an id that an operator can type. */
export function workflowIdOf(styleId: number): string {
  return `train-style-${styleId}`;
}

/**
 * Asks for the newest training of a style.
 *
 * @param client - of our namespace
 * @param styleId - the style
 * @returns null when there is none, or none that Temporal still retains
 * @throws what the call fails with when Temporal can't be asked
 */
export async function newestTraining(client: Client, styleId: number): Promise<WorkflowExecutionDescription | null> {
  try {
    return await client.workflow.getHandle(workflowIdOf(styleId)).describe();
  } catch (error) {
    if (error instanceof WorkflowNotFoundError) return null;
    throw error;
  }
}

/** Tells whether a training has not ended. */
export function isOpen({ status }: WorkflowExecutionDescription): boolean {
  return OPEN_STATUSES.includes(status.name);
}

/**
 * Tells whether a training was under way at some time since a moment: then the backend has heard of it, or will.
 *
 * @param training - the newest of its style
 * @param sinceMs - milliseconds since 1970
 */
export function hasRunSince(training: WorkflowExecutionDescription, sinceMs: number): boolean {
  return isOpen(training) || (training.closeTime?.getTime() ?? 0) >= sinceMs;
}
