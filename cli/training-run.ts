import { InvalidRequestError } from '../common/errors.ts';
import type { SheetStyle, StepReport, Trainer, TrainerJob, TrainerPosition } from '../common/trainer.ts';
import { earlyStopReason } from '../common/validation.ts';
import { listPictures } from '../native/trainer/dataset.ts';
import { holdOut } from '../native/trainer/held-out-pictures.ts';
import { trainAndValidate } from '../native/trainer/validated-training.ts';
import { writeLossChart } from './loss-chart.ts';
import type { OutputDirectory } from './output-directory.ts';
import { ProgressDisplay } from './progress.ts';
import type { ProgressOutput } from './progress.ts';
import { RunCheckpoints } from './run-checkpoints.ts';
import { recordOf } from './run-record.ts';
import { RunSheets } from './run-sheets.ts';
import { StepLog } from './step-log.ts';
import { ValidationLog } from './validation-log.ts';

/** Exit code of a run that was interrupted, as shells have it. */
export const INTERRUPTED = 130;

/** A run that crashes loses at most so many epochs, as in the service. */
const CHECKPOINT_EPOCHS = 10;

/** What {@link runTraining} needs. */
export interface TrainingRun {
  trainer: Trainer;
  job: TrainerJob;
  baseModelFingerprint: string;
  /** Micro-steps of one epoch. */
  stepsPerEpoch: number;
  /** Exists. */
  target: OutputDirectory;
  /** Receives progress and where the results are. */
  output: ProgressOutput;
  /** Stops it at the next step, with a checkpoint. */
  signal: AbortSignal;
  /** Contact sheets beside the checkpoints; absent: none. */
  sheet?: SheetStyle | null;
}

/** What a run keeps while it trains. */
interface RunState {
  start: TrainerPosition;
  checkpoints: RunCheckpoints;
  validations: ValidationLog;
  sheets: RunSheets | null;
  /** Tells people a line. */
  say: (text: string) => void;
}

/**
 * Trains to the end and writes the results, or stops when it is asked to.
 *
 * @param run - see {@link TrainingRun}
 * @returns the exit code
 * @throws CheckpointIncompatibleError when it is to go on from a checkpoint of another run; ChecksumMismatchError when it is
 *   to go on from a damaged one; InvalidRequestError when it has trained for longer than it is to
 */
export async function runTraining(run: TrainingRun): Promise<number> {
  const { trainer, job, target, output, signal } = run;
  const display = new ProgressDisplay(output);
  const say = (text: string): void => {
    display.end();
    output.write(`${text}\n`);
  };
  const record = await recordOf(job, run.baseModelFingerprint);
  const checkpoints = await RunCheckpoints.open(target, record, say);
  await tellHeldOut(job, say);
  say('loading the base model, encoding pictures and captions');
  const start = await trainer.prepare(job, checkpoints.newest, signal);
  refuseShorter(run, start);
  await checkpoints.writeRecord();
  const log = new StepLog(target.inside('steps.jsonl'), start.microStepsRun);
  const validations = new ValidationLog(target.inside('validation.jsonl'), job.config, start);
  const sheets = sheetsOf(run, say);
  await sheets?.clear();
  const state: RunState = { start, checkpoints, validations, sheets, say };
  const announceStop = (): void => say('stopping after this step');
  signal.addEventListener('abort', announceStop, { once: true });
  let result: { position: TrainerPosition; stopped: boolean };
  try {
    const onStep = stepMonitor(run, start, display);
    result = await trainInChunks(run, state, (report) => {
      log.append(report);
      if (!signal.aborted) onStep(report);
    });
    if (result.stopped) {
      await checkpoints.save(trainer);
      say(`stopped after ${result.position.microStepsRun} steps: the same command with --resume goes on`);
      return INTERRUPTED;
    }
  } finally {
    signal.removeEventListener('abort', announceStop);
    display.end();
    log.close();
  }
  return finish(run, state, { epochsRun: result.position.epochsRun, log });
}

/** The result would be that of the longer run, and its checkpoints would be gone. */
function refuseShorter(
  { job: { config }, stepsPerEpoch, target }: TrainingRun,
  { microStepsRun }: TrainerPosition,
): void {
  if (microStepsRun <= config.epochs * stepsPerEpoch) return;
  const epochs = (microStepsRun / stepsPerEpoch).toFixed(1);
  throw new InvalidRequestError(
    `The run in ${target.directory} has trained ${epochs} epochs already, and epochs is ${config.epochs}: raise it to go on, or ` +
      'name another --output and start without --resume.',
  );
}

/** Writes the results of a run that has trained to its end. Returns the exit code. */
async function finish(
  { trainer, target, signal }: TrainingRun,
  { checkpoints, validations, sheets, say }: RunState,
  { epochsRun, log }: { epochsRun: number; log: StepLog },
): Promise<number> {
  await trainer.exportWeights(target.directory);
  const sheet = await sheets?.draw(epochsRun, signal);
  await sheets?.clear();
  const lossChart = target.inside('loss.png');
  const { epochLosses, stepLosses } = log;
  await writeLossChart({ epochLosses, stepLosses, validationLosses: validations.losses }, lossChart);
  await checkpoints.remove();
  say(`weights: ${target.weightsFile}\nloss curve: ${lossChart}`);
  if (sheet !== 'stopped') return 0;
  say(`stopped: the training is finished, only the contact sheet of epoch ${epochsRun} is missing`);
  return INTERRUPTED;
}

async function tellHeldOut({ imageDirectory, config }: TrainerJob, say: (text: string) => void): Promise<void> {
  const names = (await listPictures(imageDirectory)).map((name) => ({ name }));
  const { heldOut } = holdOut(names, config);
  if (heldOut.length > 0) say(`held out of training: ${heldOut.map(({ name }) => name).join(', ')}`);
}

async function trainInChunks(
  { trainer, job, stepsPerEpoch, signal }: TrainingRun,
  { start, checkpoints, validations, sheets, say }: RunState,
  onStep: (report: StepReport) => void,
): Promise<{ position: TrainerPosition; stopped: boolean }> {
  const { config } = job;
  const train = (from: TrainerPosition, untilEpoch: number) =>
    trainAndValidate({
      ...{ trainer, config, from, stepsPerEpoch, untilEpoch, onStep, signal },
      isValidated: (epoch) => validations.has(epoch),
      onValidated: (measured) => {
        validations.append(measured);
        say(`epoch ${measured.epoch}  validation loss ${measured.loss.toFixed(4)}`);
      },
    });
  const isChunkEnd = ({ microStepsRun }: TrainerPosition) => microStepsRun % (CHECKPOINT_EPOCHS * stepsPerEpoch) === 0;
  // An interruption may have come between the last step of a chunk and its measurement.
  let result = await train(start, start.epochsRun);
  for (;;) {
    const { position, stopped } = result;
    if (stopped || position.epochsRun >= config.epochs) return result;
    const reason = isChunkEnd(position) ? earlyStopReason(validations.losses, config) : null;
    if (reason !== null) {
      say(`stopped early after epoch ${position.epochsRun} of ${config.epochs}: ${reason}`);
      return result;
    }
    if (position !== start) {
      await checkpoints.save(trainer);
      await sheets?.draw(position.epochsRun, signal);
    }
    const chunkEnd = (Math.floor(position.epochsRun / CHECKPOINT_EPOCHS) + 1) * CHECKPOINT_EPOCHS;
    result = await train(position, Math.min(config.epochs, chunkEnd));
  }
}

function sheetsOf({ trainer, target, sheet = null }: TrainingRun, say: (text: string) => void): RunSheets | null {
  return sheet === null ? null : new RunSheets(trainer, sheet, target.inside('previews'), say);
}

/** Turns reports into a line of progress; speed and rest are measured from here on. */
function stepMonitor(
  { job: { config }, stepsPerEpoch }: TrainingRun,
  start: TrainerPosition,
  display: ProgressDisplay,
): (report: StepReport) => void {
  const startMs = performance.now();
  return ({ step, loss }) => {
    const stepsRun = step + 1;
    const stepsPerSecond = (stepsRun - start.microStepsRun) / ((performance.now() - startMs) / 1000);
    display.update({
      epoch: stepsRun / stepsPerEpoch,
      totalEpochs: config.epochs,
      loss,
      stepsPerSecond,
      remainingSeconds: (config.epochs * stepsPerEpoch - stepsRun) / stepsPerSecond,
    });
  };
}
