import { existsSync } from 'node:fs';
import { PodLostError } from '../common/errors.ts';
import type { TrainerJob } from '../common/trainer.ts';
import { completeTrainingConfig } from '../common/training-config.ts';
import type { TrainingConfig } from '../common/types.ts';
import type { PodDependencies } from './dependencies.ts';
import { imageDirectory } from './job-files.ts';

/** A run as the activities know it. */
export interface RunInput {
  styleId: number;
  taskId: string;
  holdId: string;
  jobDirectory: string;
  config: TrainingConfig;
}

/**
 * Makes sure that the trainer stands exactly after `steps` micro-steps of this run.
 *
 * @param checkpointFile - restored when it does not stand there already; null: from the start
 * @param signal - ends the trainer while it loads
 * @throws PodLostError when `checkpointFile` is gone; whatever `Trainer.prepare` throws
 */
export async function standAt(
  run: RunInput & { steps: number; checkpointFile: string | null },
  signal: AbortSignal,
  { trainer, baseModel, instancePrompt, pod }: PodDependencies,
): Promise<void> {
  // The hold is part of the name: the files of another hold are gone, so nothing of it may be taken up again.
  const jobId = `${run.taskId}/${run.holdId}`;
  if (trainer.position(jobId)?.microStepsRun === run.steps) return;
  const model = await baseModel();
  const job: TrainerJob = {
    jobId,
    baseModelDirectory: model.directory,
    baseModelName: model.name,
    imageDirectory: imageDirectory(run.jobDirectory),
    fallbackCaption: instancePrompt,
    config: completeTrainingConfig(run.config),
    logLabels: { style: run.styleId, task: run.taskId, pod: pod.host },
  };
  try {
    await trainer.prepare(job, run.checkpointFile, signal);
  } catch (error) {
    if (run.checkpointFile === null || existsSync(run.checkpointFile)) throw error;
    // Before a reset the job may have come further on this pod: it then deleted what it is asked to go on from now.
    throw new PodLostError("The pod's copy of the checkpoint is gone. The job goes on from the one in the bucket.", {
      cause: error,
    });
  }
}
