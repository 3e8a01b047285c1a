import {
  CheckpointIncompatibleError,
  ImageInvalidError,
  TooFewImagesError,
  toBrushworkError,
} from '../common/errors.ts';
import type { TrainerJob } from '../common/trainer.ts';
import { completeTrainingConfig } from '../common/training-config.ts';
import type { TrainingConfig } from '../common/types.ts';
import type { PodDependencies } from './dependencies.ts';
import { PodDiskError } from './disk-fault.ts';
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
 * @throws PodDiskError when the pod's copies of pictures and checkpoint can't be read any more
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
    if (!isFaultOfCopies(error, run.checkpointFile)) throw error;
    throw new PodDiskError(
      `What this pod has downloaded and verified can't be read there any more; the job goes on elsewhere. ${toBrushworkError(error).message}`,
      { cause: error },
    );
  }
}

/**
 * Whether the disk must have failed: `download` has looked at the pictures in the same way, and compared the checkpoint
 * with its hash. A checkpoint that can be read and does not fit, such as one of another version's, is no fault of the disk.
 */
function isFaultOfCopies(error: unknown, checkpointFile: string | null): boolean {
  if (error instanceof ImageInvalidError || error instanceof TooFewImagesError) return true;
  // A file that is none is told by its name, one that does not fit in a sentence: see safetensors.cc and checkpoint.cc.
  return error instanceof CheckpointIncompatibleError && error.message.startsWith(`${checkpointFile}: `);
}
