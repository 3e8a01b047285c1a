import path from 'node:path';
import { epochName } from '../common/checkpoint-manifest.ts';
import { TrainingStalledError } from '../common/errors.ts';
import { reasonOf } from '../common/logger.ts';
import type { PodDependencies } from './dependencies.ts';
import { previewDirectory } from './job-files.ts';

/** A trainer that does not stop drawing by then is ended; the next chunk starts another one from its checkpoint. */
const STOP_LIMIT_MS = 30_000;

/** So many failures in a row are no accident. */
const MAX_FAILURES = 2;

/** Receives what becomes of the sheets. */
export interface PreviewLog {
  info: (message: string, meta: Record<string, unknown>) => void;
  warn: (message: string, meta: Record<string, unknown>) => void;
}

/**
 * Draws contact sheets on a pod as long as that works and costs little; remembers both for the job that holds the pod.
 */
export class PreviewPainter {
  readonly #deps: Pick<PodDependencies, 'trainer' | 'previews'>;
  #holdId: string | null = null;
  /** In a row. */
  #failures = 0;
  #hasDrawn = false;
  /** How long the next sheet will take by what the last one took, drawn or not, and when that was done. */
  #last: { expectedMs: number; endMs: number } | null = null;

  constructor(deps: Pick<PodDependencies, 'trainer' | 'previews'>) {
    this.#deps = deps;
  }

  /**
   * Draws the sheet of a checkpoint with the job that the trainer holds. Never fails, except by the signal.
   *
   * @param job - who holds the pod, and where its files are
   * @param at - epochs done; whether they are the last, whose sheet is tried whatever became of the others
   * @param signal - ends it
   * @returns the PNG, or null where there is none
   */
  async draw(
    job: { holdId: string; jobDirectory: string },
    { epoch, isLast }: { epoch: number; isLast: boolean },
    signal: AbortSignal,
    log: PreviewLog,
  ): Promise<string | null> {
    const { previews } = this.#deps;
    if (job.holdId !== this.#holdId) this.#begin(job.holdId);
    if (previews === null || (!isLast && !this.#isWorthIt(previews.maxShare))) return null;
    const directory = previewDirectory(job.jobDirectory);
    const file = path.join(directory, `${epochName(epoch)}.png`);
    const startMs = performance.now();
    try {
      await this.#within(previews.timeLimitMs, signal, (over) =>
        this.#deps.trainer.drawSheet({ ...previews.sheet, epoch, directory, file }, over),
      );
    } catch (error) {
      signal.throwIfAborted();
      this.#failures += 1;
      const endMs = performance.now();
      this.#last = { expectedMs: endMs - startMs, endMs };
      const isOver = this.#failures >= MAX_FAILURES;
      log.warn(isOver ? 'preview not drawn, nor more of this job on this pod but the last' : 'preview not drawn', {
        epoch,
        reason: reasonOf(error),
      });
      return null;
    }
    const endMs = performance.now();
    const durationMs = endMs - startMs;
    // Half of the first sheet were the base model's pictures, which are kept.
    this.#last = { expectedMs: this.#hasDrawn ? durationMs : durationMs / 2, endMs };
    this.#hasDrawn = true;
    this.#failures = 0;
    log.info('preview drawn', { epoch, durationMs: Math.round(durationMs) });
    return file;
  }

  #begin(holdId: string): void {
    this.#holdId = holdId;
    this.#failures = 0;
    this.#hasDrawn = false;
    this.#last = null;
  }

  #isWorthIt(maxShare: number): boolean {
    if (this.#failures >= MAX_FAILURES) return false;
    if (this.#last === null) return true;
    const { expectedMs, endMs } = this.#last;
    const trainedMs = performance.now() - endMs;
    return expectedMs <= maxShare * (trainedMs + expectedMs);
  }

  async #within(limitMs: number, signal: AbortSignal, draw: (over: AbortSignal) => Promise<void>): Promise<void> {
    const limit = new AbortController();
    let ending: NodeJS.Timeout | null = null;
    const timer = setTimeout(() => {
      const seconds = Math.round(limitMs / 1000);
      limit.abort(new TrainingStalledError(`The sheet took longer than ${seconds} s (previews.timeLimit).`));
      ending = setTimeout(() => void this.#deps.trainer.kill(), STOP_LIMIT_MS);
    }, limitMs);
    try {
      await draw(AbortSignal.any([signal, limit.signal]));
    } finally {
      clearTimeout(timer);
      if (ending !== null) clearTimeout(ending);
    }
  }
}
