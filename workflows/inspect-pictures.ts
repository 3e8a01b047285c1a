import { patched, sleep } from '@temporalio/workflow';
import type { TrainStyleInput } from '../common/types.ts';
import type { Budgets } from './budgets.ts';
import type { Calls } from './calls.ts';
import type { JobFailure } from './failures.ts';
import type { JobView } from './job-view.ts';

/** What {@link inspectPictures} needs from the job. */
export interface InspectionContext {
  input: TrainStyleInput;
  calls: Calls;
  view: JobView;
  budgets: Budgets;
  /** What an error means for the job. */
  meaningOf: (error: unknown) => JobFailure;
  /** Returns once no operator wants the job to wait. */
  whilePaused: () => Promise<void>;
}

/**
 * Looks at a job's pictures before any pod is taken: a job whose pictures can't be used fails within seconds. Only what is
 * definite ends it; where the look itself fails again and again, the pod looks for itself.
 *
 * @returns what they must still be on the pods, or null: nothing is known
 * @throws what is wrong with the pictures, or that the store stays unavailable
 */
export async function inspectPictures(context: InspectionContext): Promise<readonly string[] | null> {
  const { input, calls, view, budgets } = context;
  if (calls.inspectPictures === null || !patched('inspect-pictures')) return null;
  const { styleId, taskId, images, tags, parameters } = input;
  let pictureHashes: readonly string[] | null = null;
  for (;;) {
    await context.whilePaused();
    view.enter('queued', `Looking at ${images.length} pictures.`);
    try {
      const summary = `${images.length} pictures`;
      const looked = await calls.inspectPictures({ summary }, { styleId, taskId, images, tags, parameters });
      view.looked(looked);
      pictureHashes = looked.pictureHashes ?? null;
      break;
    } catch (error) {
      const failure = context.meaningOf(error);
      if (!failure.retryable) throw error;
      const verdict = budgets.judge(failure);
      view.failedWith(failure);
      if (verdict.action !== 'retry') {
        if (failure.code === 'STORAGE_UNAVAILABLE') throw error;
        break;
      }
      const seconds = Math.round(verdict.delayMs / 1000);
      view.explain(`Trying again in ${seconds} s after ${failure.code}: ${failure.message}`);
      await sleep(verdict.delayMs);
    }
  }
  budgets.progressMade();
  return pictureHashes;
}
