import type { ErrorCode } from '../common/errors.ts';
import type { JobFailure } from './failures.ts';

/** What to do about a failure. */
export type Verdict = { action: 'retry'; delayMs: number } | { action: 'ask-operator' } | { action: 'fail' };

/** Errors that another attempt rarely heals: fewer attempts than the configured number. */
const FEWER_ATTEMPTS: Partial<Record<ErrorCode, number>> = { LOSS_NOT_FINITE: 2, GPU_OUT_OF_MEMORY: 2 };

/** Of our bucket. Pictures that can't be had are no matter of tries: the job fails at once. */
const STORE_CODES: readonly ErrorCode[] = ['STORAGE_UNAVAILABLE', 'ACCESS_DENIED'];
/** A store that is down heals by itself, keys are put right by people: about an hour of attempts. */
const STORAGE_ATTEMPTS = 34;
/** Of these in a row, about four minutes at first, on one pod: it may be the only one that can't reach the store. */
const STORAGE_ATTEMPTS_ON_A_POD = 8;

/** Errors that say something about the pod, not about the job: the next attempt gives the pod back and holds another. */
const POD_SUSPECTS: readonly ErrorCode[] = [
  'GPU_FAULT',
  'GPU_OUT_OF_MEMORY',
  'TRAINING_STALLED',
  'LOSS_NOT_FINITE',
  'MODEL_LOAD_FAILED',
  // Of what a control worker has found sound.
  'IMAGE_NOT_FOUND',
  'IMAGE_INVALID',
];

const FIRST_DELAY_MS = 2_000;
const LONGEST_DELAY_MS = 120_000;

function backoffMs(failuresInARow: number): number {
  return Math.min(FIRST_DELAY_MS * 2 ** (failuresInARow - 1), LONGEST_DELAY_MS);
}

/** True when the error casts doubt on the pod it happened on. */
export function suspectsPod(code: ErrorCode): boolean {
  return POD_SUSPECTS.includes(code);
}

/**
 * How often a job tries again. Lost pods and each kind of application error have a counter of their own, and every
 * committed checkpoint sets all of them back: a job that gets on may lose as many pods as it likes.
 */
export class Budgets {
  readonly #podLossBudget: number;
  readonly #applicationAttempts: number;
  #podLossesInARow = 0;
  readonly #errorsInARow = new Map<ErrorCode, number>();

  /**
   * @param limits - `podLossBudget`: losses in a row before an operator is asked; `applicationAttempts`: attempts
   *   that may fail with the same code
   */
  constructor(limits: { podLossBudget: number; applicationAttempts: number }) {
    this.#podLossBudget = limits.podLossBudget;
    this.#applicationAttempts = limits.applicationAttempts;
  }

  /** A checkpoint was committed (or an operator said to go on): everything counts from zero again. */
  progressMade(): void {
    this.#errorsInARow.clear();
    this.#podLossesInARow = 0;
  }

  /** Counts a failure and says what to do about it. */
  judge(failure: JobFailure): Verdict {
    switch (failure.kind) {
      case 'cancelled':
        return { action: 'fail' };
      case 'shutdown':
        return { action: 'retry', delayMs: 0 };
      case 'pod-lost': {
        this.#podLossesInARow += 1;
        if (this.#podLossesInARow >= this.#podLossBudget) return { action: 'ask-operator' };
        // The first loss is most likely a spot machine taken back: another pod is held at once.
        return { action: 'retry', delayMs: this.#podLossesInARow === 1 ? 0 : backoffMs(this.#podLossesInARow - 1) };
      }
      case 'application': {
        if (!failure.retryable) return { action: 'fail' };
        const errors = (this.#errorsInARow.get(failure.code) ?? 0) + 1;
        this.#errorsInARow.set(failure.code, errors);
        if (errors >= this.#attemptsAt(failure.code)) return { action: 'fail' };
        return { action: 'retry', delayMs: backoffMs(errors) };
      }
    }
  }

  /** Whether a failure that is yet to be judged has met this pod often enough to try another one, though nothing accuses it. */
  isEnoughOfPod({ code }: JobFailure): boolean {
    if (!STORE_CODES.includes(code)) return false;
    return ((this.#errorsInARow.get(code) ?? 0) + 1) % STORAGE_ATTEMPTS_ON_A_POD === 0;
  }

  #attemptsAt(code: ErrorCode): number {
    if (STORE_CODES.includes(code)) return Math.max(STORAGE_ATTEMPTS, this.#applicationAttempts);
    return Math.min(FEWER_ATTEMPTS[code] ?? Infinity, this.#applicationAttempts);
  }
}
