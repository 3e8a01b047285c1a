import {
  ActivityFailure,
  ApplicationFailure,
  CancelledFailure,
  TimeoutFailure,
  isCancellation,
} from '@temporalio/workflow';
import { BrushworkError, isErrorCode } from '../common/errors.ts';
import type { ErrorCode } from '../common/errors.ts';
import type { FailureDetails } from '../common/types.ts';

/** What a failure means for the job. */
export interface JobFailure {
  /**
   * - `cancelled`: somebody cancelled the job
   * - `shutdown`: the pod left in an orderly way
   * - `pod-lost`: the pod vanished
   * - `application`: the work itself failed
   */
  kind: 'cancelled' | 'shutdown' | 'pod-lost' | 'application';
  code: ErrorCode;
  message: string;
  /** True when trying again can help. */
  retryable: boolean;
  /** Not to be tried again before this time has passed, as the other side asked. */
  retryAfterMs?: number;
}

const POD_FAILURE_TYPES = ['POD_LOST', 'ResetWorkflow'];
const CONTROL_ACTIVITIES = ['inspectPictures', 'findResumePoint', 'promote', 'notify'];
const SHUTDOWN_FAILURE_TYPES = ['WORKER_SHUTDOWN', 'WorkerShutdown'];

/** Thrown inside the workflow when the hold on a pod ended although the job still needs it. */
export class PodGoneError extends Error {
  readonly failure: JobFailure;

  constructor(failure: JobFailure) {
    super(failure.message);
    this.name = 'PodGoneError';
    this.failure = failure;
  }
}

/** Thrown inside the workflow when an error was retried often enough: the job fails with what it wraps. */
export class BudgetSpentError extends Error {
  override readonly cause: unknown;

  constructor(cause: unknown) {
    super('Retried often enough.');
    this.name = 'BudgetSpentError';
    this.cause = cause;
  }
}

/** Thrown inside the workflow to leave the pod because an operator asked for a pause. */
export class PauseRequestedError extends Error {
  override readonly name = 'PauseRequestedError';
}

/**
 * Tells whether an error means that the job was cancelled. A worker that dies while it is being cancelled leaves a
 * timeout behind whose `retryState` says so.
 */
export function isCancelled(error: unknown): boolean {
  return isCancellation(error) || (error instanceof ActivityFailure && error.retryState === 'CANCEL_REQUESTED');
}

/** A lost pod, told in words. */
export function podLost(message: string): JobFailure {
  return { kind: 'pod-lost', code: 'POD_LOST', message, retryable: true };
}

/**
 * Reads what a failed activity, or anything else thrown in the workflow, means.
 *
 * @param error - what a `catch` received
 */
export function jobFailureOf(error: unknown): JobFailure {
  if (error instanceof PodGoneError) return error.failure;
  if (isCancelled(error)) {
    return { kind: 'cancelled', code: 'CANCELLED', message: 'The job was cancelled.', retryable: false };
  }
  const cause = error instanceof ActivityFailure ? error.cause : error;
  const activity = error instanceof ActivityFailure ? error.activityType : 'the workflow';
  if (cause instanceof TimeoutFailure) {
    const { timeoutType } = cause;
    const what = timeoutType === 'START_TO_CLOSE' ? 'took longer than it may' : 'got no answer from its worker';
    const message = `${activity} ${what} (${timeoutType}).`;
    if (!CONTROL_ACTIVITIES.includes(activity)) return podLost(message);
    return { kind: 'application', code: 'INTERNAL', message, retryable: true };
  }
  if (cause instanceof ApplicationFailure) {
    const type = cause.type ?? '';
    const message = cause.message;
    if (POD_FAILURE_TYPES.includes(type)) return podLost(message);
    if (SHUTDOWN_FAILURE_TYPES.includes(type)) {
      return { kind: 'shutdown', code: 'WORKER_SHUTDOWN', message, retryable: true };
    }
    const code = isErrorCode(type) ? type : 'INTERNAL';
    const details = cause.details?.[0] as FailureDetails | undefined;
    return { kind: 'application', code, message, retryable: cause.nonRetryable !== true, ...details };
  }
  if (cause instanceof BrushworkError) {
    return { kind: 'application', code: cause.code, message: cause.message, retryable: cause.retryable };
  }
  const message = cause instanceof Error ? cause.message : String(cause);
  return { kind: 'application', code: 'INTERNAL', message: `${activity} failed: ${message}`, retryable: true };
}

/** The error that closes the workflow: keeps a cancellation a cancellation, and gives everything else its code. */
export function closingError(error: unknown, failure: JobFailure): Error {
  if (failure.kind === 'cancelled') {
    return isCancellation(error) && error instanceof Error ? error : new CancelledFailure(failure.message);
  }
  if (error instanceof ActivityFailure) return error;
  return ApplicationFailure.create({ message: failure.message, type: failure.code, nonRetryable: true });
}
