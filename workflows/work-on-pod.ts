import { ApplicationFailure, CancelledFailure, CancellationScope, patched, sleep } from '@temporalio/workflow';
import type { DownloadResult, UploadResult } from '../common/activity-types.ts';
import type { CheckpointRef, PodHeld, TrainStyleInput, TrainingConfig } from '../common/types.ts';
import { earlyStopReason } from '../common/validation.ts';
import type { Budgets } from './budgets.ts';
import { suspectsPod } from './budgets.ts';
import type { Calls, OnPod } from './calls.ts';
import { BudgetSpentError, PauseRequestedError, jobFailureOf } from './failures.ts';
import type { JobFailure } from './failures.ts';
import type { JobView } from './job-view.ts';

/** What the work on a pod needs from the job. */
export interface PodWorkContext {
  input: TrainStyleInput;
  calls: Calls;
  view: JobView;
  budgets: Budgets;
  /** What the pictures were when they were looked at, or null: nothing is known. */
  pictureHashes: readonly string[] | null;
  paused: () => boolean;
  /** Trains with gradient checkpointing, whatever the configuration says. */
  lowMemory: boolean;
  /** Learns how long a step takes. */
  measured: (progress: { meanStepMs: number; stepsPerEpoch: number }) => void;
  /** Manifests that turned out damaged, by epoch, over all pods. */
  damagedManifests: Map<number, string>;
}

/** Trained and staged: what `promote` and the complete notice need. */
export interface StagedWeights {
  upload: UploadResult;
  loss: number;
  epochs: number;
  rank: number;
  alpha: number;
}

/** Where training stands on this pod. */
interface Position {
  epoch: number;
  step: number;
  checkpointFile: string | null;
  /** Contact sheet of the last chunk, or null. */
  previewFile: string | null;
}

function fileOf({ checkpointFile, epoch }: Position): string {
  if (checkpointFile !== null) return checkpointFile;
  throw ApplicationFailure.nonRetryable(`No checkpoint file at epoch ${epoch}. Please report this.`, 'INTERNAL');
}

/** Rejects when `promise` does, but never resolves: to be raced against. */
function onlyFailureOf(promise: Promise<unknown>): Promise<never> {
  return promise.then(() => new Promise<never>(() => undefined));
}

/** One job on one pod: from the newest checkpoint in the bucket to weights in the staging area. */
export class PodWork {
  readonly #context: PodWorkContext;
  readonly #pod: PodHeld;
  readonly #onPod: OnPod;
  readonly #ids: { styleId: number; taskId: string; holdId: string };
  readonly #running: Promise<unknown>[] = [];

  constructor(context: PodWorkContext, pod: PodHeld) {
    this.#context = context;
    this.#pod = pod;
    this.#onPod = context.calls.onPod(pod.queue);
    const { styleId, taskId } = context.input;
    this.#ids = { styleId, taskId, holdId: pod.holdId };
  }

  /**
   * @returns the staged weights
   * @throws PauseRequestedError at the next committed checkpoint after an operator asked for a pause
   */
  async run(): Promise<StagedWeights> {
    const scope = new CancellationScope({ cancellable: true });
    try {
      return await scope.run(() => this.#train());
    } finally {
      // The pod is given back only when nothing runs on it any more.
      scope.cancel();
      await Promise.allSettled(this.#running);
    }
  }

  async #train(): Promise<StagedWeights> {
    const { view } = this.#context;
    view.holdsPod(this.#pod);
    view.enter('preparing', 'Looking for a checkpoint in the bucket.');
    const { resumeFrom, data } = await this.#prepare();
    const { config } = data;
    view.willTrain(config.epochs, data.doubts ?? []);
    this.#leaveIfPaused();

    let position: Position = {
      epoch: resumeFrom?.epoch ?? 0,
      step: resumeFrom?.step ?? 0,
      checkpointFile: data.checkpointFile,
      previewFile: null,
    };
    let commit: Promise<void> = Promise.resolve();
    while (position.epoch < config.epochs && !this.#stopsEarly(config)) {
      view.enter('training', null);
      // A commit that fails for good ends the training beside it at once.
      position = await Promise.race([this.#trainChunk(data, position), onlyFailureOf(commit)]);
      // Chunk n+2 never starts before checkpoint n is in the bucket.
      view.explain('Waiting until the checkpoint before is in the bucket.');
      await commit;
      view.explain(null);
      commit = this.#commit(data, position);
      commit.catch(() => undefined);
      if (this.#context.paused()) await commit;
      this.#leaveIfPaused();
    }
    view.explain('Waiting until the last checkpoint is in the bucket.');
    await commit;
    view.enter('publishing', 'Uploading the weights in all formats.');
    const upload = await this.#retrying(() =>
      this.#onPod.upload(
        { summary: `weights from ${this.#pod.host}` },
        {
          ...this.#ids,
          jobDirectory: data.jobDirectory,
          checkpointFile: fileOf(position),
          config,
          totalSteps: position.step,
        },
      ),
    );
    return {
      upload,
      loss: view.epochLosses.at(-1) ?? 0,
      epochs: position.epoch,
      rank: config.rank,
      alpha: config.alpha,
    };
  }

  async #prepare(): Promise<{ resumeFrom: CheckpointRef | null; data: DownloadResult }> {
    const { calls, view, input, damagedManifests, pictureHashes } = this.#context;
    const { styleId, taskId, images, tags, parameters } = input;
    for (;;) {
      const found = await this.#retrying(
        () => calls.findResumePoint({ styleId, taskId, excludedManifestKeys: [...damagedManifests.values()] }),
        // Jobs of before that had tried for an hour gave the pod back.
        () => !patched('resume-point-again'),
      );
      view.resumesFrom(found);
      view.explain(`Downloading ${images.length} pictures to ${this.#pod.host}.`);
      const resumeFrom = found.checkpoint;
      const from = resumeFrom === null ? '' : `, checkpoint of epoch ${resumeFrom.epoch}`;
      try {
        const data = await this.#retrying(
          () =>
            this.#onPod.download(
              { summary: `${images.length} pictures to ${this.#pod.host}${from}` },
              { ...this.#ids, images, tags, parameters, resumeFrom, ...(pictureHashes && { pictureHashes }) },
            ),
          ({ code }) => resumeFrom !== null && code === 'CHECKSUM_MISMATCH',
        );
        return { resumeFrom, data };
      } catch (error) {
        const failure = jobFailureOf(error);
        if (failure.code !== 'CHECKSUM_MISMATCH' || resumeFrom === null) throw error;
        // Each turn excludes one more manifest, so this ends at the latest with a start from epoch 0.
        damagedManifests.set(resumeFrom.epoch, resumeFrom.manifestKey);
        view.failedWith(failure);
        view.enter('preparing', `The checkpoint of epoch ${resumeFrom.epoch} is damaged: going back to an older one.`);
      }
    }
  }

  /** Asked where chunks end, so that a job that changes pods decides like one that does not. */
  #stopsEarly(config: TrainingConfig): boolean {
    const { view } = this.#context;
    const reason = earlyStopReason(view.validationLosses, config);
    if (reason !== null) view.stopsEarly(reason);
    return reason !== null;
  }

  async #trainChunk(data: DownloadResult, from: Position): Promise<Position> {
    const { view, input } = this.#context;
    const { chunkEpochs } = input.settings;
    const { epochs } = data.config;
    const untilEpoch = Math.min(epochs, (Math.floor(from.epoch / chunkEpochs) + 1) * chunkEpochs);
    const chunk = await this.#retrying(() =>
      this.#onPod.trainEpochChunk(
        { summary: `epochs ${from.epoch + 1}–${untilEpoch} on ${this.#pod.host}` },
        {
          ...this.#ids,
          jobDirectory: data.jobDirectory,
          checkpointFile: from.checkpointFile,
          config: this.#context.lowMemory ? { ...data.config, gradientCheckpointing: true } : data.config,
          fromEpoch: from.epoch,
          stepsPerEpoch: data.stepsPerEpoch ?? Math.ceil(data.imageCount / data.config.batchSize),
          untilEpoch,
          ...((data.config.earlyStopPatience ?? null) !== null && { validationLosses: [...view.validationLosses] }),
          webhookOrigin: input.webhookOrigin,
        },
      ),
    );
    this.#context.measured({
      meanStepMs: chunk.meanStepMs,
      stepsPerEpoch: (chunk.stepsRun - from.step) / (untilEpoch - from.epoch),
    });
    view.trained(chunk);
    const { epochsRun, stepsRun, checkpointFile, previewFile = null } = chunk;
    return { epoch: epochsRun, step: stepsRun, checkpointFile, previewFile };
  }

  async #commit(data: DownloadResult, position: Position): Promise<void> {
    const { view, budgets, damagedManifests } = this.#context;
    const { epoch, step } = position;
    const epochLosses = view.epochLosses.slice(0, epoch);
    const validationLosses = view.validationLosses.filter((measured) => measured.epoch <= epoch);
    const { checkpoint } = await this.#retrying(() =>
      this.#onPod.checkpoint(
        { summary: `epoch ${epoch} from ${this.#pod.host}` },
        {
          ...this.#ids,
          checkpointFile: fileOf(position),
          previewFile: position.previewFile,
          epoch,
          step,
          fingerprint: data.fingerprint,
          epochLosses,
          ...(validationLosses.length > 0 && { validationLosses }),
          replaceDamaged: damagedManifests.has(epoch),
        },
      ),
    );
    damagedManifests.delete(epoch);
    view.committed(checkpoint);
    view.failedWith(null);
    budgets.progressMade();
  }

  /**
   * Repeats what failed for a reason that may pass, on the same pod unless the pod itself is in doubt.
   *
   * @param except - failures that the caller deals with
   */
  #retrying<Result>(
    attempt: () => Promise<Result>,
    except: (failure: JobFailure) => boolean = () => false,
  ): Promise<Result> {
    const result = this.#attempts(attempt, except);
    this.#running.push(result);
    return result;
  }

  async #attempts<Result>(attempt: () => Promise<Result>, except: (failure: JobFailure) => boolean): Promise<Result> {
    const { budgets, view } = this.#context;
    for (;;) {
      try {
        const result = await attempt();
        this.#leaveIfCancelled();
        return result;
      } catch (error) {
        this.#leaveIfCancelled();
        const failure = jobFailureOf(error);
        if (failure.kind !== 'application' || suspectsPod(failure.code) || except(failure)) throw error;
        // Judged by who holds the next pod, and by nobody else: each failure counts once.
        if (budgets.isEnoughOfPod(failure) && patched('store-from-elsewhere')) throw error;
        const verdict = budgets.judge(failure);
        if (verdict.action !== 'retry') throw new BudgetSpentError(error);
        view.failedWith(failure);
        await this.#waitBeforeRetry(failure, verdict.delayMs);
      }
    }
  }

  async #waitBeforeRetry({ code, message }: JobFailure, delayMs: number): Promise<void> {
    const { view } = this.#context;
    const { reason } = view;
    const explanation = `Trying again in ${Math.round(delayMs / 1000)} s after ${code}: ${message}`;
    view.explain(explanation);
    await sleep(delayMs);
    // What runs beside this may have something else to say by now.
    if (view.reason === explanation) view.explain(reason);
  }

  #leaveIfPaused(): void {
    if (this.#context.paused()) throw new PauseRequestedError();
  }

  /** The hold may have ended while an answer from the pod was still on its way: it does not count any more. */
  #leaveIfCancelled(): void {
    if (CancellationScope.current().consideredCancelled) throw new CancelledFailure('The hold on the pod has ended.');
  }
}
