import { createHash } from 'node:crypto';
import {
  ServiceError,
  WorkflowExecutionAlreadyStartedError,
  WorkflowNotFoundError,
  isGrpcServiceError,
} from '@temporalio/client';
import type { Client, WorkflowExecutionDescription, WorkflowStartOptions } from '@temporalio/client';
import { InternalWorkflowStartOptionsSymbol } from '@temporalio/client/lib/internal.js';
import type { InternalWorkflowStartOptions } from '@temporalio/client/lib/internal.js';
import { TypedSearchAttributes } from '@temporalio/common';
import { workflowSettings } from '../common/config.ts';
import type { Config } from '../common/config.ts';
import { InternalError, TrainingInProgressError } from '../common/errors.ts';
import type { BrushworkError } from '../common/errors.ts';
import { reasonOf } from '../common/logger.ts';
import type { Logger } from '../common/logger.ts';
import {
  NO_VALUE,
  gpuHostKey,
  styleIdKey,
  taskIdKey,
  trainEpochKey,
  trainErrorCodeKey,
  trainPhaseKey,
} from '../common/search-attributes.ts';
import { defaultEpochs } from '../common/training-config.ts';
import type { RefusalInput, TrainStyleInput, TrainStyleMemo } from '../common/types.ts';
import { allowedOrigin, originOf } from '../common/webhook-origin.ts';
import { addresseeOf } from './envelope.ts';
import type { JobMessage } from './envelope.ts';

/** Names by which the workflows are registered. */
const WORKFLOW_TYPE = 'trainStyle';
const REFUSAL_TYPE = 'tellRefusal';

const GRPC_INVALID_ARGUMENT = 3;

/** A workflow that has not ended; a paused one goes on some day. */
const OPEN_STATUSES: readonly string[] = ['RUNNING', 'PAUSED'];

/** Thrown when Temporal can't be reached or can't take the start now: the message stays where it is. */
export class TemporalUnavailableError extends Error {
  override readonly name = 'TemporalUnavailableError';
}

/** The workflow id under which the backend is told that a message was refused. */
export function refusalIdOf(styleId: number, content: Buffer): string {
  return `refused-${styleId}-${createHash('sha256').update(content).digest('hex').slice(0, 12)}`;
}

/** The workflow id of a style: one training at a time, and an id that an operator can type. */
export function workflowIdOf(styleId: number): string {
  return `train-style-${styleId}`;
}

/** Starts workflows for job messages, once each. */
export class TrainingStarter {
  readonly #client: Client;
  readonly #config: Config;
  readonly #logger: Logger;
  readonly #callMs: number;
  #searchAttributes = true;

  /**
   * @param client - connected to the namespace of the configuration
   * @param config - goes into each job as far as a workflow needs it
   * @param logger - hears about outages
   * @param callMs - time limit of one call, the client's own tries included
   */
  constructor(client: Client, config: Config, logger: Logger, callMs: number) {
    this.#client = client;
    this.#config = config;
    this.#logger = logger;
    this.#callMs = callMs;
  }

  /** Tells whether Temporal answers for our namespace. */
  async isReachable(): Promise<boolean> {
    try {
      await this.#withDeadline(() =>
        this.#client.workflowService.describeNamespace({ namespace: this.#config.temporal.namespace }),
      );
      return true;
    } catch (error) {
      this.#logger.warn(
        { reason: reasonOf(error), address: this.#config.temporal.address },
        'Temporal does not answer',
      );
      return false;
    }
  }

  /**
   * Starts the workflow of a job. Safe to repeat: a job that runs, or ran last for its style, is not started again.
   *
   * @returns `duplicate` when the job is known already
   * @throws TrainingInProgressError when another task of the style is training
   * @throws BlockedTargetError when the webhook's origin is not allowed
   * @throws TemporalUnavailableError when it should be tried again later
   */
  async start(job: JobMessage): Promise<'started' | 'duplicate'> {
    // Before anything can refuse it: what was accepted once may come again after the settings have changed, and a refusal
    // would contradict what the job itself tells the backend.
    if (await this.#isKnown(job)) return 'duplicate';
    const { epochs, repeats, validationPictures = 0 } = this.#config.training.recipe;
    const input = {
      styleId: job.styleId,
      taskId: job.taskId,
      images: job.images,
      tags: job.tags,
      parameters: job.parameters,
      expectedEpochs: job.parameters.epochs ?? epochs ?? defaultEpochs(job.images.length - validationPictures, repeats),
      webhookOrigin: allowedOrigin(job.webhookUrl, this.#config.backend.allowedOrigins),
    };
    try {
      await this.#startWorkflow(input);
      return 'started';
    } catch (error) {
      // Another bridge was quicker: with this job, or with another one of the style.
      if (error instanceof WorkflowExecutionAlreadyStartedError && (await this.#isKnown(job))) return 'duplicate';
      throw toStartError(error);
    }
  }

  /**
   * Has the backend told that a message was refused, once however often it comes. Not while its style is in training: the
   * notice names a style and no task, so it would be taken for the end of that training.
   *
   * @param content - the message's body
   * @param refusal - why
   * @returns false when there is nobody to tell, or when it would mislead
   * @throws TemporalUnavailableError when it should be tried again later
   */
  async tellRefusal(content: Buffer, refusal: BrushworkError): Promise<boolean> {
    const addressee = addresseeOf(content);
    if (addressee === null || refusal instanceof TrainingInProgressError) return false;
    const { styleId, webhookUrl } = addressee;
    const { allowedOrigins } = this.#config.backend;
    const named = originOf(webhookUrl);
    const webhookOrigin = named !== null && allowedOrigins.includes(named) ? named : allowedOrigins[0];
    if (webhookOrigin === undefined || (await this.#isTraining(styleId))) return false;
    const workflowId = refusalIdOf(styleId, content);
    const input: RefusalInput = {
      ...{ styleId, messageId: workflowId, webhookOrigin },
      ...{ errorCode: refusal.code, errorMessage: refusal.message },
      settings: workflowSettings(this.#config, false),
    };
    const options: WorkflowStartOptions = {
      ...{ workflowId, taskQueue: this.#config.queues.control, args: [input] },
      ...{ workflowIdConflictPolicy: 'USE_EXISTING', workflowIdReusePolicy: 'REJECT_DUPLICATE' },
      staticSummary: `style ${styleId} · message refused: ${refusal.code}`,
    };
    try {
      await this.#withDeadline(() => this.#client.workflow.start(REFUSAL_TYPE, options));
    } catch (error) {
      if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw toStartError(error);
    }
    return true;
  }

  async #isTraining(styleId: number): Promise<boolean> {
    const last = await this.#lastOf(styleId);
    return last !== null && OPEN_STATUSES.includes(last.status.name);
  }

  /** The newest run for a style, or null when there is none. */
  async #lastOf(styleId: number): Promise<WorkflowExecutionDescription | null> {
    try {
      return await this.#withDeadline(() => this.#client.workflow.getHandle(workflowIdOf(styleId)).describe());
    } catch (error) {
      if (error instanceof WorkflowNotFoundError) return null;
      throw toStartError(error);
    }
  }

  /** True when this task runs or ran last; false when the style is free. */
  async #isKnown(job: JobMessage): Promise<boolean> {
    const last = await this.#lastOf(job.styleId);
    if (last === null) return false;
    const { taskId } = (last.memo ?? {}) as Partial<TrainStyleMemo>;
    if (taskId === job.taskId) return true;
    if (!OPEN_STATUSES.includes(last.status.name)) return false;
    throw new TrainingInProgressError(
      `Style ${job.styleId} is being trained by task ${taskId ?? 'unknown'}: wait for it to end, or cancel it, and send task ${job.taskId} again.`,
    );
  }

  async #startWorkflow(job: Omit<TrainStyleInput, 'settings'>): Promise<void> {
    if (!this.#searchAttributes) {
      await this.#send(job, false);
      return;
    }
    try {
      await this.#send(job, true);
    } catch (error) {
      if (!isInvalidArgument(error)) throw error;
      // Most likely the namespace does not know our attributes; if it is the job, this fails as well.
      await this.#send(job, false);
      this.#searchAttributes = false;
      this.#logger.warn(
        { reason: reasonOf(error) },
        'The namespace does not know our search attributes: jobs run, but cannot be searched. Register those that temporal.yaml lists and restart the bridge.',
      );
    }
  }

  async #send(job: Omit<TrainStyleInput, 'settings'>, searchAttributes: boolean): Promise<void> {
    const memo: TrainStyleMemo = { taskId: job.taskId };
    const input: TrainStyleInput = { ...job, settings: workflowSettings(this.#config, searchAttributes) };
    const options: WorkflowStartOptions & InternalWorkflowStartOptions = {
      workflowId: workflowIdOf(job.styleId),
      taskQueue: this.#config.queues.control,
      args: [input],
      workflowIdConflictPolicy: 'FAIL',
      workflowIdReusePolicy: 'ALLOW_DUPLICATE',
      memo: { ...memo },
      staticSummary: `style ${job.styleId} · ${job.images.length} images · ${job.expectedEpochs} epochs`,
      ...(searchAttributes ? { typedSearchAttributes: attributesOf(job) } : {}),
      // The server ignores a second start with the id of the one that made the last run. This closes the gap between
      // looking and starting, also for a job that ended in between.
      [InternalWorkflowStartOptionsSymbol]: { requestId: `brushwork-start-${job.taskId}` },
    };
    await this.#withDeadline(() => this.#client.workflow.start(WORKFLOW_TYPE, options));
  }

  #withDeadline<T>(call: () => Promise<T>): Promise<T> {
    return this.#client.withDeadline(Date.now() + this.#callMs, call);
  }
}

/** All attributes that the workflow will ever set: a start that is accepted proves that it may. */
function attributesOf(job: Omit<TrainStyleInput, 'settings'>): TypedSearchAttributes {
  return new TypedSearchAttributes([
    { key: styleIdKey, value: String(job.styleId) },
    { key: taskIdKey, value: job.taskId },
    { key: trainPhaseKey, value: 'queued' },
    { key: trainEpochKey, value: 0 },
    { key: trainErrorCodeKey, value: NO_VALUE },
    { key: gpuHostKey, value: NO_VALUE },
  ]);
}

function isInvalidArgument(error: unknown): boolean {
  const cause = error instanceof ServiceError ? error.cause : error;
  return isGrpcServiceError(cause) && Number(cause.code) === GRPC_INVALID_ARGUMENT;
}

/** A job that Temporal will never take must not be tried for ever; everything else is worth another try. */
function toStartError(error: unknown): Error {
  if (error instanceof TrainingInProgressError) return error;
  if (isInvalidArgument(error)) {
    return new InternalError('Temporal refused the start of this job as malformed: see the cause in the log.', {
      cause: error,
    });
  }
  return new TemporalUnavailableError('Temporal did not take the start.', { cause: error });
}
