import { setCurrentDetails, setHandler, upsertSearchAttributes } from '@temporalio/workflow';
import type { SearchAttributeUpdatePair } from '@temporalio/common';
import type { FindResumePointResult, InspectPicturesResult, TrainEpochChunkResult } from '../common/activity-types.ts';
import { NO_VALUE, gpuHostKey, trainEpochKey, trainErrorCodeKey, trainPhaseKey } from '../common/search-attributes.ts';
import type { CheckpointRef, PodHeld, TrainPhase, TrainStatus, ValidationLoss } from '../common/types.ts';
import { currentDetails } from './current-details.ts';
import type { JobFailure } from './failures.ts';
import { checkpointsQuery, lossCurveQuery, statusQuery, validationCurveQuery } from './messages.ts';

/** Newest checkpoints that the query lists. */
const LISTED_CHECKPOINTS = 2;

/** Phases in which the job works on a pod. */
const ON_POD: readonly TrainPhase[] = ['preparing', 'training'];

/** What a {@link JobView} needs to know of the job. */
export interface JobViewOptions {
  styleId: number;
  taskId: string;
  /** False where the namespace does not know our search attributes. */
  searchAttributes: boolean;
  /** Called after the phase has changed. */
  onPhase: (status: Readonly<TrainStatus>) => void;
}

/** Everything that people see of a job: queries, search attributes and the details in the Web UI. */
export class JobView {
  readonly #options: JobViewOptions;
  readonly #status: TrainStatus;
  #reason: string | null = null;
  #note: string | null = null;
  #checkpoints: CheckpointRef[] = [];
  #epochLosses: number[] = [];
  #validationLosses: ValidationLoss[] = [];
  /** What the bridge has set at the start. */
  readonly #shown = new Map<string, unknown>([
    [trainPhaseKey.name, 'queued'],
    [trainEpochKey.name, 0],
    [gpuHostKey.name, NO_VALUE],
    [trainErrorCodeKey.name, NO_VALUE],
  ]);

  constructor(options: JobViewOptions) {
    this.#options = options;
    this.#status = {
      phase: 'queued',
      reason: null,
      styleId: options.styleId,
      taskId: options.taskId,
      epoch: 0,
      totalEpochs: null,
      loss: null,
      validationLoss: null,
      earlyStop: null,
      host: null,
      gpu: null,
      lastCheckpoint: null,
      podLosses: 0,
      lastError: null,
      dataDoubts: [],
      dataReport: null,
    };
    setHandler(statusQuery, () => this.#status);
    setHandler(checkpointsQuery, () => this.#checkpoints);
    setHandler(lossCurveQuery, () => this.#epochLosses);
    setHandler(validationCurveQuery, () => this.#validationLosses);
  }

  /** Where the job stands now. */
  get status(): Readonly<TrainStatus> {
    return this.#status;
  }

  /** Mean loss of each epoch, oldest first. */
  get epochLosses(): readonly number[] {
    return this.#epochLosses;
  }

  /** What was measured on held-out pictures, oldest first. */
  get validationLosses(): readonly ValidationLoss[] {
    return this.#validationLosses;
  }

  /** Why the job does not get on just now; null: it does. */
  get reason(): string | null {
    return this.#reason;
  }

  /** Moves on to a phase, or tells why the job is (still) in it. */
  enter(phase: TrainPhase, reason: string | null): void {
    const changed = phase !== this.#status.phase;
    this.#status.phase = phase;
    this.explain(reason);
    if (changed) this.#options.onPhase(this.#status);
  }

  /** Tells why the job does not get on just now, or with null that it does; the phase stays. */
  explain(reason: string | null): void {
    this.#reason = reason;
    this.#show();
  }

  /** Says something before every reason while the job works on a pod; null: no more. */
  note(note: string | null): void {
    this.#note = note;
    this.#show();
  }

  /** Shows the pod that the job holds, or null when it was given back or lost. */
  holdsPod(pod: PodHeld | null): void {
    this.#status.host = pod?.host ?? null;
    this.#status.gpu = pod?.gpu ?? null;
    this.#show();
  }

  /** Goes back to what the bucket holds: training behind it is gone. */
  resumesFrom(found: FindResumePointResult): void {
    this.#checkpoints = [...found.checkpoints];
    this.#epochLosses = [...found.epochLosses];
    this.#validationLosses = [...(found.validationLosses ?? [])];
    this.#status.lastCheckpoint = found.checkpoint;
    this.#status.epoch = found.checkpoint?.epoch ?? 0;
    this.#status.loss = found.epochLosses.at(-1) ?? null;
    this.#status.validationLoss = this.#validationLosses.at(-1)?.loss ?? null;
    this.#show();
  }

  /** Shows what was found out about the pictures; errors on the way to it are overcome. */
  looked({ doubts, reportUri }: InspectPicturesResult): void {
    this.#status.dataDoubts = [...doubts];
    this.#status.dataReport = reportUri;
    this.failedWith(null);
  }

  /** Shows how many epochs the job will have, and what is doubtful about its data. */
  willTrain(totalEpochs: number, dataDoubts: readonly string[]): void {
    this.#status.totalEpochs = totalEpochs;
    this.#status.earlyStop = null;
    this.#status.dataDoubts = [...dataDoubts];
    this.#show();
  }

  /** Shows that the epochs so far are all that the job will have. */
  stopsEarly(reason: string): void {
    this.#status.totalEpochs = this.#status.epoch;
    this.#status.earlyStop = reason;
    this.#show();
  }

  /** Adds trained epochs. */
  trained({ epochsRun, epochLosses, validationLosses = [] }: TrainEpochChunkResult): void {
    this.#epochLosses.push(...epochLosses);
    this.#validationLosses.push(...validationLosses);
    this.#status.epoch = epochsRun;
    this.#status.loss = this.#epochLosses.at(-1) ?? null;
    this.#status.validationLoss = this.#validationLosses.at(-1)?.loss ?? null;
    this.#show();
  }

  /** Adds a committed checkpoint. */
  committed(checkpoint: CheckpointRef): void {
    this.#checkpoints = [checkpoint, ...this.#checkpoints].slice(0, LISTED_CHECKPOINTS);
    this.#status.lastCheckpoint = checkpoint;
    this.#show();
  }

  /** Counts a pod that vanished or left. */
  lostPod(): void {
    this.#status.podLosses += 1;
  }

  /** Shows an error, or null when it is overcome. */
  failedWith(failure: JobFailure | null): void {
    this.#status.lastError = failure === null ? null : { code: failure.code, message: failure.message };
    this.#show();
  }

  #show(): void {
    const note = ON_POD.includes(this.#status.phase) ? this.#note : null;
    this.#status.reason = [note, this.#reason].filter((text) => text !== null).join(' ') || null;
    setCurrentDetails(currentDetails(this.#status));
    if (!this.#options.searchAttributes) return;
    const { phase, epoch, host, lastError } = this.#status;
    const pairs: SearchAttributeUpdatePair[] = [
      { key: trainPhaseKey, value: phase },
      { key: trainEpochKey, value: epoch },
      { key: gpuHostKey, value: host ?? NO_VALUE },
      { key: trainErrorCodeKey, value: lastError?.code ?? NO_VALUE },
    ];
    // Each upsert is an event in the history: only what changed is written.
    const changed = pairs.filter(({ key, value }) => this.#shown.get(key.name) !== value);
    if (changed.length === 0) return;
    for (const { key, value } of changed) this.#shown.set(key.name, value);
    upsertSearchAttributes(changed);
  }
}
