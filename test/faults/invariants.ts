import type { BackendRequest } from '../../scripts/stack/backend.ts';
import type { Outcome } from './fault-case.ts';
import type { HistoryEvent } from './support/history.ts';
import type { Sample } from './support/scene.ts';
import { CHUNK_EPOCHS } from './support/settings.ts';

/** An object in the bucket. */
export interface StoredObject {
  key: string;
  etag: string;
  writtenAtMs: number;
}

/** Everything that is known of a job after its end. */
export interface Evidence {
  /** That the job had to train. */
  epochs: number;
  outcome: Outcome;
  /** Final notices with other `webhook-id`s that may come: 2 where a reset redoes what the backend was told. */
  maxTold: number;
  /** The backend refuses the notice for good: none is taken. */
  isRefused: boolean;
  /** Code of the `failed` notice; null where another outcome is expected. */
  errorCode: string | null;
  /** What the backend was told before a reset. */
  toldBefore: 'failed' | null;
  /** The weights are in place, whatever the outcome. */
  isPublished: boolean;
  /** The job waits for an operator. */
  needsOperator: boolean;
  /** A checkpoint was damaged: training goes on from exactly this epoch. Null: nothing that was committed is trained again. */
  resumesFrom: number | null;
  /** Of the newest run. */
  closed: string;
  /** Runs of the workflow: as expected, and as they were. */
  runs: { expected: number; found: number };
  /** What the backend got about the style, oldest first. */
  requests: BackendRequest[];
  /** Of all runs, oldest first. */
  events: HistoryEvent[];
  samples: Sample[];
  /** First steps of chunks that pods have told of: when, and of which epoch (from 0). */
  firstSteps: { atMs: number; epoch: number }[];
  published: Record<string, Buffer>;
  /** The weights in the bucket as they were each time when the backend was told that they are there. */
  announced: Record<string, Buffer>[];
  reference: Record<string, Buffer>;
  /** Keys that belong to the job, at its end and at the end of everything. */
  objects: { atEnd: StoredObject[]; later: StoredObject[] };
  /** Requests of pods that had lost the job. */
  zombieWrites: string[];
  /** Data of checkpoints whose manifest is there and that are not what it says. */
  damagedCheckpoints: string[];
  secrets: string[];
  /** Where secrets must not be: history, status, error texts. */
  texts: string[];
}

/** What a pod writes is read a little later. */
const LOG_LAG_MS = 1_000;

const CLOSED: Record<Outcome, string> = {
  complete: 'COMPLETED',
  cancelled: 'CANCELLED',
  failed: 'FAILED',
  terminated: 'TERMINATED',
};

const isFinal = ({ kind, accepted }: BackendRequest) => accepted && (kind === 'complete' || kind === 'failed');

/** 1: one outcome, and one truth for the backend, however often it was told. */
export function oneOutcome(evidence: Evidence): string[] {
  const { outcome, closed, runs, requests, maxTold, isRefused, toldBefore, errorCode } = evidence;
  const faults: string[] = [];
  if (closed !== CLOSED[outcome]) faults.push(`the workflow is ${closed}, not ${CLOSED[outcome]}`);
  if (runs.found !== runs.expected) faults.push(`there are ${runs.found} runs, not ${runs.expected}`);
  const taken = requests.filter(isFinal);
  const kinds = new Set(taken.map(({ kind }) => kind));
  const ids = new Set(taken.map(({ headers }) => headers['webhook-id']));
  const last = outcome === 'terminated' || isRefused ? [] : [outcome === 'complete' ? 'complete' : 'failed'];
  const expected = [...(toldBefore === null ? [] : [toldBefore]), ...last];
  if ([...kinds].join() !== expected.join())
    faults.push(`the backend was told ${[...kinds].join(' and ') || 'nothing'} instead of ${expected.join()}`);
  if (ids.size > maxTold) faults.push(`the backend was told ${ids.size} times under different ids`);
  if (ids.has(undefined)) faults.push('a final notice came without webhook-id');
  const code = outcome === 'cancelled' ? 'CANCELLED' : errorCode;
  const codes = taken.filter(({ kind }) => kind === 'failed').map(({ body }) => body?.['error_code']);
  if (codes.some((other) => other !== code)) faults.push(`error_code is ${codes.join()}, not ${code}`);
  return faults;
}

/** 2: the weights are those of an undisturbed run; a job without success has none. */
export function sameWeights({ outcome, isPublished, published, reference }: Evidence): string[] {
  if (outcome === 'complete' || isPublished) return differences(published, reference);
  const names = Object.keys(published);
  return names.length === 0 ? [] : [`weights were published all the same: ${names.join(', ')}`];
}

function differences(weights: Record<string, Buffer>, reference: Record<string, Buffer>): string[] {
  return Object.entries(reference)
    .filter(([name, bytes]) => weights[name]?.equals(bytes) !== true)
    .map(([name]) => `${name} ${weights[name] === undefined ? 'is missing' : 'differs from the undisturbed run'}`);
}

/**
 * 3: at most one checkpoint interval and the chunk in flight are computed again, and never what is committed; after the
 * newest checkpoint was damaged, training goes on from the one before and from nowhere else.
 */
export function littleAgain({ events, resumesFrom, firstSteps }: Evidence): string[] {
  const faults: string[] = [];
  const limit = CHUNK_EPOCHS * 2;
  let reached = 0;
  let committed = 0;
  let inVain = 0;
  let isBack = resumesFrom === null;
  for (const { scheduled, completed } of events) {
    if (completed?.activity === 'checkpoint') committed = Math.max(committed, completed.epoch ?? 0);
    if (scheduled?.chunk === undefined) continue;
    const { fromEpoch, untilEpoch, atMs, endedAtMs, isCalledOff } = scheduled.chunk;
    // After a reset a chunk of before may be asked for once more, on a pod that is gone from the job: nobody trains it.
    const isTrained = (step: { atMs: number; epoch: number }) =>
      step.epoch === fromEpoch && step.atMs >= atMs && step.atMs <= endedAtMs + LOG_LAG_MS;
    if (!firstSteps.some(isTrained)) continue;
    if (!isBack && fromEpoch < reached) {
      isBack = true;
      committed = Math.min(committed, resumesFrom ?? 0);
      if (fromEpoch !== resumesFrom) faults.push(`went on from epoch ${fromEpoch} instead of ${resumesFrom}`);
    }
    // Or on one that did not know yet that it was gone: it got no further than this chunk.
    if (isCalledOff && fromEpoch < committed) {
      inVain += untilEpoch - fromEpoch;
      if (inVain > limit) faults.push(`${inVain} epochs were trained that nobody wanted`);
      continue;
    }
    if (reached - fromEpoch > limit) faults.push(`went back from epoch ${reached} to ${fromEpoch}`);
    if (fromEpoch < committed) faults.push(`epoch ${committed} was committed, trained from ${fromEpoch}`);
    reached = Math.max(reached, untilEpoch);
  }
  if (!isBack) faults.push(`training did not go back to epoch ${resumesFrom}: the damage was not met`);
  return faults;
}

/** 4: what is in the bucket is whole: the weights whenever they are announced, the final checkpoint; and no trace of staging. */
export function nothingPartial(evidence: Evidence): string[] {
  const { epochs, outcome, objects, damagedCheckpoints, announced, reference } = evidence;
  const faults = [
    ...damagedCheckpoints.map((key) => `${key} is not what its manifest says`),
    ...announced.flatMap((weights) => differences(weights, reference).map((fault) => `when announced, ${fault}`)),
  ];
  if (outcome !== 'complete') return faults;
  const keys = objects.atEnd.map(({ key }) => key);
  const staged = keys.filter((key) => key.startsWith('staging/'));
  if (staged.length > 0) faults.push(`left in staging: ${staged.join(', ')}`);
  const manifests = keys.filter((key) => key.includes('/manifests/'));
  if (manifests.length !== 1 || !manifests[0]?.includes(`epoch-${String(epochs).padStart(6, '0')}`))
    faults.push(`the final checkpoint is not the only one: ${manifests.join(', ') || 'none'}`);
  return faults;
}

/** 5: a pod that lost the job changes nothing, and nobody does after the end: neither the bucket nor what the backend knows. */
export function nothingLate({ zombieWrites, objects: { atEnd, later }, requests }: Evidence): string[] {
  const end = requests.findLastIndex(isFinal);
  const progress = end < 0 ? [] : requests.slice(end).filter(({ kind, accepted }) => accepted && kind === 'progress');
  const show = ({ key, etag, writtenAtMs }: StoredObject) => `${key} ${etag} ${writtenAtMs}`;
  const before = new Set(atEnd.map(show));
  const after = new Set(later.map(show));
  return [
    ...zombieWrites.map((write) => `written without the job: ${write}`),
    ...progress.map(({ body }) => `progress after the end: ${JSON.stringify(body)}`),
    ...[...after].filter((object) => !before.has(object)).map((object) => `written after the end: ${object}`),
    ...[...before].filter((object) => !after.has(object)).map((object) => `gone after the end: ${object}`),
  ];
}

/** 6: each wait says why, and nobody has to do anything. */
export function waitsExplained({ samples, needsOperator }: Evidence): string[] {
  const waits = ['waiting-for-pod', 'notifying', 'publishing', 'paused', 'awaiting-operator'];
  const silent = samples.filter(({ status: { phase, reason } }) => waits.includes(phase) && reason === null);
  const faults = silent.map(({ status }) => `phase ${status.phase} without a reason`);
  if (!needsOperator && samples.some(({ status }) => status.phase === 'awaiting-operator'))
    faults.push('an operator was needed');
  return [...new Set(faults)];
}

/** 7: no secret where people or other systems look. */
export function noSecrets({ secrets, texts }: Evidence): string[] {
  return secrets.flatMap((secret, index) =>
    texts.some((text) => text.includes(secret)) ? [`secret number ${index} is in a history or a log`] : [],
  );
}

/** All of them, by number. */
export const INVARIANTS = [
  oneOutcome,
  sameWeights,
  littleAgain,
  nothingPartial,
  nothingLate,
  waitsExplained,
  noSecrets,
] as const;
