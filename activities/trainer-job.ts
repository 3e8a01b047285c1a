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
  await trainer.prepare(job, run.checkpointFile, signal);
}
