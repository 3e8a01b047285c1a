import { createHash } from 'node:crypto';
import { WorkflowExecutionAlreadyStartedError } from '@temporalio/client';
import type { Client, WorkflowExecutionDescription, WorkflowStartOptions } from '@temporalio/client';
import { InternalWorkflowStartOptionsSymbol } from '@temporalio/client/lib/internal.js';
import type { InternalWorkflowStartOptions } from '@temporalio/client/lib/internal.js';
import { TypedSearchAttributes } from '@temporalio/common';
import { workflowSettings } from '../common/config.ts';
import type { Config } from '../common/config.ts';
import { TrainingInProgressError } from '../common/errors.ts';
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
import { hasRunSince, isOpen, newestTraining, workflowIdOf } from '../common/style-trainings.ts';
import { defaultEpochs } from '../common/training-config.ts';
import type { RefusalInput, TrainStyleInput } from '../common/types.ts';
import { allowedOrigin, originOf } from '../common/webhook-origin.ts';
import { UnclearRepeatError, isListed, memoAfter, rememberedBy } from './earlier-tasks.ts';
import { addresseeOf } from './envelope.ts';
import type { JobMessage } from './envelope.ts';
import { TemporalUnavailableError, isInvalidArgument, toStartError } from './temporal-errors.ts';

/** Names by which the workflows are registered. */
const WORKFLOW_TYPE = 'trainStyle';
const REFUSAL_TYPE = 'tellRefusal';

/** A start follows a look after one more call at most; so old, still less than RabbitMQ waits for a silent bridge. */
const MAX_LOOK_AGE_CALLS = 2;

/** Refusals of messages that may be about a job that the backend hears of anyway. */
const UNTOLD = [TrainingInProgressError, UnclearRepeatError];

/** The workflow id under which the backend is told that a message was refused. */
export function refusalIdOf(styleId: number, content: Buffer): string {
  return `refused-${styleId}-${createHash('sha256').update(content).digest('hex').slice(0, 12)}`;
}

/** What became of a job's message: `ran before` where another task of the style has run since. */
export type StartOutcome = 'started' | 'duplicate' | 'ran before';

/** What was seen of a style before something is started for it. */
interface Look {
  training: WorkflowExecutionDescription | null;
  atMs: number;
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
   * Starts the workflow of a job. Safe to repeat: a job that runs, or has run, is not started again.
   *
   * @param job - the job
   * @param isRedelivered - whether RabbitMQ has handed the same message out before
   * @returns `started`, or what is known of the job already
   * @throws TrainingInProgressError when another task of the style is training
   * @throws UnclearRepeatError when nobody can say whether it is a new order
   * @throws BlockedTargetError when the webhook's origin is not allowed
   * @throws TemporalUnavailableError when it should be tried again later
   */
  async start(job: JobMessage, isRedelivered: boolean): Promise<StartOutcome> {
    // Before anything can refuse it: what was accepted once may come again after the settings have changed, and a refusal
    // would contradict what the job itself tells the backend.
    const look = await this.#lookAt(job.styleId);
    const known = await this.#knownAs(job, look, isRedelivered);
    if (known !== null) return known;
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
      await this.#startWorkflow(input, look);
      return 'started';
    } catch (error) {
      if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw toStartError(error);
      // Another bridge was quicker: with this job, or with another one of the style.
      const knownNow = await this.#knownAs(job, await this.#lookAt(job.styleId), isRedelivered);
      if (knownNow === null) throw toStartError(error);
      return knownNow;
    }
  }

  /**
   * Has the backend told that a message was refused, once however often it comes. Not where its style is in training, or was
   * since: the notice names a style and no task, so it would be taken for the end of that training.
   *
   * @param content - the message's body
   * @param refusal - why
   * @param firstSeenMs - when it was refused before (milliseconds since 1970), or null
   * @returns false when there is nobody to tell, or when it would mislead
   * @throws TemporalUnavailableError when it should be tried again later
   */
  async tellRefusal(content: Buffer, refusal: BrushworkError, firstSeenMs: number | null): Promise<boolean> {
    const addressee = addresseeOf(content);
    if (addressee === null || UNTOLD.some((reason) => refusal instanceof reason)) return false;
    const { styleId, webhookUrl } = addressee;
    const { allowedOrigins } = this.#config.backend;
    const named = originOf(webhookUrl);
    const webhookOrigin = named !== null && allowedOrigins.includes(named) ? named : allowedOrigins[0];
    if (webhookOrigin === undefined) return false;
    const look = await this.#lookAt(styleId);
    if (look.training !== null && hasRunSince(look.training, firstSeenMs ?? Infinity)) return false;
    const workflowId = refusalIdOf(styleId, content);
    const input: RefusalInput = {
      ...{ styleId, messageId: workflowId, webhookOrigin },
      ...{ errorCode: refusal.code, errorMessage: refusal.message },
      ...(firstSeenMs !== null && { firstSeenMs }),
      settings: workflowSettings(this.#config, false),
    };
    const options: WorkflowStartOptions = {
      ...{ workflowId, taskQueue: this.#config.queues.control, args: [input] },
      ...{ workflowIdConflictPolicy: 'USE_EXISTING', workflowIdReusePolicy: 'REJECT_DUPLICATE' },
      staticSummary: `style ${styleId} · message refused: ${refusal.code}`,
    };
    try {
      await this.#startAfter(look, REFUSAL_TYPE, options);
    } catch (error) {
      if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw toStartError(error);
    }
    return true;
  }

  async #lookAt(styleId: number): Promise<Look> {
    try {
      const training = await this.#withDeadline(() => newestTraining(this.#client, styleId));
      return { training, atMs: performance.now() };
    } catch (error) {
      throw toStartError(error);
    }
  }

  /**
   * What is known of a task: null when it may start.
   *
   * @throws TrainingInProgressError, UnclearRepeatError when it may not
   */
  async #knownAs(
    job: JobMessage,
    { training }: Look,
    isRedelivered: boolean,
  ): Promise<'duplicate' | 'ran before' | null> {
    if (training === null) return null;
    const { taskId, earlierTaskIds = [] } = rememberedBy(training);
    if (taskId === job.taskId) return 'duplicate';
    // A new order of what was trained before the newest task has the same bytes, and so the same id where it names none.
    const mayRepeat = job.namesTask || isRedelivered;
    if (mayRepeat && (earlierTaskIds.includes(job.taskId) || (await this.#isListed(job)))) {
      if (job.namesTask) return 'ran before';
      throw new UnclearRepeatError(
        `The message names no task, style ${job.styleId} was trained by the same message before task ${taskId ?? 'unknown'}, and it comes a second time: move it back to train that again, else remove it.`,
      );
    }
    if (!isOpen(training)) return null;
    throw new TrainingInProgressError(
      `Style ${job.styleId} is being trained by task ${taskId ?? 'unknown'}: wait for it to end, or cancel it, and send task ${job.taskId} again.`,
    );
  }

  /** Best effort: what the newest training remembers counts also where Temporal lists nothing. */
  async #isListed(job: JobMessage): Promise<boolean> {
    try {
      return await this.#withDeadline(() => isListed(this.#client, job));
    } catch (error) {
      this.#logger.warn(
        { reason: reasonOf(error) },
        'Temporal does not list earlier trainings: going by the newest one',
      );
      return false;
    }
  }

  async #startWorkflow(job: Omit<TrainStyleInput, 'settings'>, look: Look): Promise<void> {
    if (!this.#searchAttributes) {
      await this.#send(job, look, false);
      return;
    }
    try {
      await this.#send(job, look, true);
    } catch (error) {
      if (!isInvalidArgument(error)) throw error;
      // Most likely the namespace does not know our attributes; if it is the job, this fails as well.
      await this.#send(job, look, false);
      this.#searchAttributes = false;
      this.#logger.warn(
        { reason: reasonOf(error) },
        'The namespace does not know our search attributes: jobs run, but cannot be searched. Register those that temporal.yaml lists and restart the bridge.',
      );
    }
  }

  async #send(job: Omit<TrainStyleInput, 'settings'>, look: Look, searchAttributes: boolean): Promise<void> {
    const input: TrainStyleInput = { ...job, settings: workflowSettings(this.#config, searchAttributes) };
    const options: WorkflowStartOptions & InternalWorkflowStartOptions = {
      workflowId: workflowIdOf(job.styleId),
      taskQueue: this.#config.queues.control,
      args: [input],
      workflowIdConflictPolicy: 'FAIL',
      workflowIdReusePolicy: 'ALLOW_DUPLICATE',
      memo: { ...memoAfter(job.taskId, rememberedBy(look.training)) },
      staticSummary: `style ${job.styleId} · ${job.images.length} images · ${job.expectedEpochs} epochs`,
      ...(searchAttributes ? { typedSearchAttributes: attributesOf(job) } : {}),
      // The server ignores a second start with the id of the one that made the last run. This closes the gap between
      // looking and starting, also for a job that ended in between.
      [InternalWorkflowStartOptionsSymbol]: { requestId: `brushwork-start-${job.taskId}` },
    };
    await this.#startAfter(look, WORKFLOW_TYPE, options);
  }

  /** Starts a workflow by what was seen, unless this process stood still meanwhile: RabbitMQ may have given up on us. */
  async #startAfter(look: Look, workflowType: string, options: WorkflowStartOptions): Promise<void> {
    if (performance.now() - look.atMs > this.#callMs * MAX_LOOK_AGE_CALLS) {
      throw new TemporalUnavailableError('This process stood still after it had asked Temporal about the style.');
    }
    await this.#withDeadline(() => this.#client.workflow.start(workflowType, options));
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
