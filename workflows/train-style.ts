import { CancellationScope, condition, patched, sleep, uuid4 } from '@temporalio/workflow';
import { checkJobRequest } from '../common/job-request.ts';
import type { NotifyInput } from '../common/activity-types.ts';
import type { TrainPhase, TrainStyleInput, TrainStyleResult } from '../common/types.ts';
import { Backend } from './backend.ts';
import { Budgets } from './budgets.ts';
import { bindActivities } from './calls.ts';
import type { Calls } from './calls.ts';
import {
  BudgetSpentError,
  PauseRequestedError,
  PodGoneError,
  closingError,
  jobFailureOf,
  podLost,
} from './failures.ts';
import type { JobFailure } from './failures.ts';
import { insistOn } from './insist-on.ts';
import { inspectPictures } from './inspect-pictures.ts';
import { JobView } from './job-view.ts';
import { Operator } from './operator.ts';
import { PodHolder } from './pod-holder.ts';
import { PodWork } from './work-on-pod.ts';
import type { PodWorkContext, StagedWeights } from './work-on-pod.ts';

/** Why a job that an operator pauses does not stop at once. */
const PAUSING = 'Pausing: the pod is given back at the next checkpoint.';

/** Phases whose start the backend hears of; the last ones have notices of their own. */
const ANNOUNCED_PHASES: readonly TrainPhase[] = ['waiting-for-pod', 'preparing', 'training', 'publishing'];
/** Likewise, though jobs of before said nothing of them. */
const PHASES_OF_WAITING: readonly TrainPhase[] = ['queued', 'paused', 'awaiting-operator'];

/**
 * Trains a style: holds a pod, trains on it from the newest checkpoint in the bucket, publishes the weights and tells
 * the backend. Goes on with another pod when one is lost.
 *
 * @param input - the accepted job
 */
export async function trainStyle(input: TrainStyleInput): Promise<TrainStyleResult> {
  const job = new Job(input);
  try {
    const staged = await job.train();
    // From here on a cancel comes too late: the backend must not hear of both a result and a cancellation.
    return await CancellationScope.nonCancellable(() => job.publish(staged));
  } catch (error) {
    return await CancellationScope.nonCancellable(() => job.fail(error));
  }
}

class Job {
  readonly #input: TrainStyleInput;
  readonly #calls: Calls;
  readonly #backend: Backend;
  readonly #view: JobView;
  readonly #operator: Operator;
  readonly #holder = new PodHolder();
  readonly #budgets: Budgets;
  readonly #scope = CancellationScope.current();
  readonly #damagedManifests = new Map<number, string>();
  #pictureHashes: readonly string[] | null = null;
  #msPerEpoch: number | null = null;
  #lowMemory = false;

  constructor(input: TrainStyleInput) {
    const { styleId, taskId, settings } = input;
    this.#input = input;
    this.#calls = bindActivities(settings);
    this.#backend = new Backend(this.#calls, input);
    this.#budgets = new Budgets(settings);
    this.#view = new JobView({
      styleId,
      taskId,
      searchAttributes: settings.searchAttributes,
      onPhase: (status) => {
        if (!isAnnounced(status.phase)) return;
        const epochsLeft = (status.totalEpochs ?? 0) - status.epoch;
        const leftMs = this.#msPerEpoch === null ? null : epochsLeft * this.#msPerEpoch;
        this.#backend.tellProgress(status, leftMs && Math.round(leftMs / 1000));
      },
    });
    this.#operator = new Operator((paused) => this.#view.note(paused ? PAUSING : null));
  }

  /** Trains to the end, over as many pods as it takes. */
  async train(): Promise<StagedWeights> {
    checkJobRequest(this.#input);
    this.#pictureHashes = await inspectPictures({
      input: this.#input,
      calls: this.#calls,
      view: this.#view,
      budgets: this.#budgets,
      meaningOf: (error) => this.#meaningOf(error),
      whilePaused: () => this.#whilePaused(),
    });
    for (;;) {
      await this.#whilePaused();
      try {
        return await this.#trainOnOnePod();
      } catch (error) {
        this.#view.holdsPod(null);
        if (error instanceof PauseRequestedError) continue;
        if (error instanceof BudgetSpentError) throw error.cause;
        const failure = this.#meaningOf(error);
        if (failure.kind === 'cancelled') throw error;
        const verdict = this.#budgets.judge(failure);
        if (verdict.action === 'fail') throw error;
        if (failure.code === 'GPU_OUT_OF_MEMORY') this.#lowMemory = true;
        if (failure.kind !== 'application') this.#view.lostPod();
        this.#view.failedWith(failure);
        if (verdict.action === 'ask-operator') await this.#askOperator(failure);
        else if (verdict.delayMs > 0) await this.#waitBeforeNextPod(failure, verdict.delayMs);
      }
    }
  }

  /** Moves the staged weights to their final place and tells the backend; undelivered news don't undo the training. */
  async publish(staged: StagedWeights): Promise<TrainStyleResult> {
    const { styleId, taskId, webhookOrigin, settings } = this.#input;
    const { upload, loss, epochs, rank, alpha } = staged;
    this.#view.holdsPod(null);
    this.#view.enter('publishing', 'Moving the weights to their final place.');
    const { stagingPrefix, objects } = upload;
    const promote = (tryCount: number) => this.#calls.promote({ styleId, taskId, stagingPrefix, objects, tryCount });
    const { modelUri } = await insistOn(promote, {
      limits: settings.limits.promote,
      mayPass: ({ retryable }) => retryable && patched('promote-again'),
      waiting: ({ code, message }) =>
        this.#view.explain(`The weights are not in place yet (${code}: ${message}) Trying on.`),
    });
    const undelivered = await this.#deliver({
      kind: 'complete',
      styleId,
      taskId,
      webhookOrigin,
      webhookId: uuid4(),
      modelUri,
      loss,
      epochs,
      rank,
      alpha,
    });
    this.#view.failedWith(undelivered);
    this.#view.enter('done', undelivered === null ? null : 'The weights are in place, but the backend does not know.');
    return { modelUri, loss, epochs, podLosses: this.#view.status.podLosses };
  }

  /** Tells the backend that the job ended without weights, and ends it. */
  async fail(error: unknown): Promise<never> {
    const { styleId, taskId, webhookOrigin } = this.#input;
    const failure = this.#meaningOf(error);
    this.#view.holdsPod(null);
    this.#view.failedWith(failure);
    const undelivered = await this.#deliver({
      kind: 'failed',
      styleId,
      taskId,
      webhookOrigin,
      webhookId: uuid4(),
      errorCode: failure.code,
      errorMessage: failure.message,
    });
    const unknown = undelivered === null ? '' : ` The backend does not know: ${undelivered.message}`;
    this.#view.enter(failure.kind === 'cancelled' ? 'cancelled' : 'failed', failure.message + unknown);
    throw closingError(error, failure);
  }

  async #trainOnOnePod(): Promise<StagedWeights> {
    const { styleId, taskId, settings } = this.#input;
    this.#view.enter('waiting-for-pod', `Waiting for a free pod on the task queue \`${settings.podsQueue}\`.`);
    const request = {
      hold: (holdId: string) => this.#calls.holdPod({ summary: `style ${styleId}` }, { holdId, styleId, taskId }),
      paused: () => this.#operator.paused,
    };
    return this.#holder.withPod(request, (pod) => new PodWork(this.#podWorkContext(), pod).run());
  }

  #podWorkContext(): PodWorkContext {
    return {
      input: this.#input,
      calls: this.#calls,
      view: this.#view,
      budgets: this.#budgets,
      pictureHashes: this.#pictureHashes,
      paused: () => this.#operator.paused,
      lowMemory: this.#lowMemory,
      measured: ({ meanStepMs, stepsPerEpoch }) => {
        this.#msPerEpoch = meanStepMs * stepsPerEpoch;
      },
      damagedManifests: this.#damagedManifests,
    };
  }

  /** A cancel of the job wins over whatever else went wrong; a cancellation that nobody asked for is a lost pod. */
  #meaningOf(error: unknown): JobFailure {
    const failure = jobFailureOf(error);
    if (this.#scope.consideredCancelled) return { ...failure, ...CANCELLED };
    return failure.kind === 'cancelled' ? podLost('The pod stopped the work by itself.') : failure;
  }

  async #deliver(notice: NotifyInput): Promise<JobFailure | null> {
    const about = notice.kind === 'complete' ? 'the weights are ready' : 'the job has ended';
    this.#view.enter('notifying', `Telling the backend that ${about}.`);
    return this.#backend.deliver(notice, ({ code, message }) => {
      this.#view.enter('notifying', `The backend does not know yet that ${about} (${code}: ${message}) Trying on.`);
    });
  }

  async #whilePaused(): Promise<void> {
    if (!this.#operator.paused) return;
    this.#view.enter('paused', 'An operator paused the job. The signal `resumeTraining` continues it.');
    await condition(() => !this.#operator.paused);
  }

  async #askOperator(failure: JobFailure): Promise<void> {
    this.#operator.ask();
    this.#view.enter(
      'awaiting-operator',
      `${this.#input.settings.podLossBudget} pods were lost in a row without a new checkpoint, the last one because: ` +
        `${failure.message} Look after the pods, then send the signal \`retryNow\`, or \`giveUp\` to end the job.`,
    );
    await condition(() => this.#operator.answer !== null);
    if (this.#operator.answer === 'give-up') throw new PodGoneError(failure);
    this.#budgets.progressMade();
  }

  async #waitBeforeNextPod(failure: JobFailure, delayMs: number): Promise<void> {
    const seconds = Math.round(delayMs / 1000);
    this.#view.enter('waiting-for-pod', `Trying again in ${seconds} s after ${failure.code}: ${failure.message}`);
    await sleep(delayMs);
  }
}

function isAnnounced(phase: TrainPhase): boolean {
  if (ANNOUNCED_PHASES.includes(phase)) return true;
  return PHASES_OF_WAITING.includes(phase) && patched('waiting-announced');
}

const CANCELLED: JobFailure = {
  kind: 'cancelled',
  code: 'CANCELLED',
  message: 'The job was cancelled by an operator.',
  retryable: false,
};
