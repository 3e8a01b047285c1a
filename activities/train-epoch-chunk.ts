import { Context } from '@temporalio/activity';
import { mkdir } from 'node:fs/promises';
import { LossNotFiniteError } from '../common/errors.ts';
import { faultPoint } from '../common/fault-point.ts';
import type { StepReport } from '../common/trainer.ts';
import { completeTrainingConfig } from '../common/training-config.ts';
import type { ValidationLoss } from '../common/types.ts';
import { earlyStopReason } from '../common/validation.ts';
import type { TrainEpochChunkInput, TrainEpochChunkResult } from '../common/activity-types.ts';
import { trainAndValidate } from '../native/trainer/validated-training.ts';
import type { PodDependencies } from './dependencies.ts';
import { EpochMeter } from './epoch-meter.ts';
import { checkpointDirectory, checkpointFile } from './job-files.ts';
import type { HeldPodScope } from './on-held-pod.ts';
import type { PreviewPainter } from './preview-painter.ts';
import type { ProgressPace } from './progress-pace.ts';
import { StallWatch } from './stall-watch.ts';
import { standAt } from './trainer-job.ts';

/**
 * A trainer that has not stopped at a step boundary by then is ended: the GPU must be idle 10 s after a cancel, of which
 * `pod.beat` may pass before the pod hears of it.
 */
export const STOP_LIMIT_MS = 3_000;

/**
 * Trains some epochs and leaves a checkpoint on the pod's disk. Sends heartbeats with the progress, and progress notices
 * to the backend, as long as the trainer moves.
 *
 * @param pace - of the progress notices, over all chunks of this pod
 * @param painter - of this pod's contact sheets
 * @throws TrainingStalledError when it does not
 */
export async function trainEpochChunk(
  input: TrainEpochChunkInput,
  { signal, checkFence }: HeldPodScope,
  deps: PodDependencies,
  pace: ProgressPace,
  painter: PreviewPainter,
): Promise<TrainEpochChunkResult> {
  const { trainer, timing } = deps;
  const { fromEpoch, untilEpoch, stepsPerEpoch, jobDirectory } = input;
  const context = Context.current();
  const watch = new StallWatch(timing);
  const over = AbortSignal.any([signal, watch.signal]);
  const meter = new EpochMeter(input);
  const notices = pace.send(input.holdId, async (noticeSignal) => {
    // A pod that was frozen wakes with a notice that is due, and the job may have ended elsewhere.
    checkFence();
    await deps.backend.progress(input.webhookOrigin, meter.notice(input.styleId), noticeSignal);
  });
  const beat = setInterval(() => context.heartbeat(meter.progress()), timing.beatMs);
  let ending: NodeJS.Timeout | null = null;
  const endTrainer = () => {
    // Should the trainer not even end by that, Temporal must notice that nothing moves any more.
    clearInterval(beat);
    ending = setTimeout(() => void trainer.kill(), watch.signal.aborted ? 0 : STOP_LIMIT_MS);
  };
  over.addEventListener('abort', endTrainer);
  try {
    context.heartbeat(meter.progress());
    await faultPoint('train:begin', input.taskId);
    const steps = fromEpoch * stepsPerEpoch;
    await standAt({ ...input, steps }, over, deps);
    watch.moved(timing.stallMs);
    const onStep = (report: StepReport) => {
      watch.moved(timing.stallMs);
      if (meter.stepCount === 0) context.log.info('first step of a chunk', { epoch: report.epoch, step: report.step });
      meter.add(report);
      // Not waited for: the trainer is somewhere in the next step then.
      void faultPoint('train:step', input.taskId);
    };
    const { position, stopped } = await trainAndValidate({
      ...{ trainer, config: completeTrainingConfig(input.config), stepsPerEpoch, untilEpoch, onStep, signal: over },
      from: { epochsRun: fromEpoch, microStepsRun: steps, optimizerStepsRun: steps },
      // The chunk before has measured what it ended with; only the first one has none before it.
      isValidated: (epoch) => epoch === fromEpoch && fromEpoch > 0,
      // On a CPU a measurement takes much longer than a step.
      onValidating: () => watch.moved(timing.loadStallMs),
      onValidated: (measured) => {
        watch.moved(timing.stallMs);
        context.log.info('validation', { ...measured });
        meter.addValidation(measured);
      },
    });
    if (stopped) over.throwIfAborted();
    await mkdir(checkpointDirectory(jobDirectory), { recursive: true });
    const file = checkpointFile(jobDirectory, untilEpoch);
    await trainer.saveCheckpoint(file);
    await faultPoint('train:saved', input.taskId);
    over.throwIfAborted();
    const epochLosses = meter.epochLosses();
    const loss = epochLosses.at(-1);
    if (loss === undefined || epochLosses.length < untilEpoch - fromEpoch) throw lossNotFinite(input);
    // The painter has a limit of its own.
    watch.moved(Infinity);
    const at = { epoch: untilEpoch, isLast: isLastChunk(input, meter.validationLosses) };
    const previewFile = await painter.draw(input, at, over, context.log);
    return {
      epochsRun: position.epochsRun,
      stepsRun: position.microStepsRun,
      loss,
      epochLosses,
      ...(meter.validationLosses && { validationLosses: meter.validationLosses }),
      checkpointFile: file,
      previewFile,
      meanStepMs: meter.meanStepMs(),
    };
  } catch (error) {
    throw over.aborted ? over.reason : error;
  } finally {
    // The hold ends after the last chunk as well, and by then the trainer may serve another job.
    over.removeEventListener('abort', endTrainer);
    if (ending !== null) clearTimeout(ending);
    clearInterval(beat);
    watch.stop();
    notices.stop();
  }
}

/** Whether the workflow will publish what this chunk ends with. */
function isLastChunk(
  { config, untilEpoch, validationLosses = [] }: TrainEpochChunkInput,
  measured: readonly ValidationLoss[] = [],
): boolean {
  return untilEpoch === config.epochs || earlyStopReason([...validationLosses, ...measured], config) !== null;
}

function lossNotFinite({ fromEpoch, untilEpoch, config }: TrainEpochChunkInput): LossNotFiniteError {
  const precision = config.mixedPrecision === 'fp16' ? ', or use mixed_precision "no" or "bf16"' : '';
  return new LossNotFiniteError(
    `An epoch between ${fromEpoch + 1} and ${untilEpoch} has no finite loss at all: lower learning_rate${precision}.`,
  );
}
