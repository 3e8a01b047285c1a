import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import path from 'node:path';
import { InvalidRequestError } from '../common/errors.ts';
import type { SheetStyle, StepReport, Trainer, TrainerJob, TrainerPosition } from '../common/trainer.ts';
import { earlyStopReason } from '../common/validation.ts';
import { listPictures } from '../native/trainer/dataset.ts';
import { holdOut } from '../native/trainer/held-out-pictures.ts';
import { trainAndValidate } from '../native/trainer/validated-training.ts';
import { writeLossChart } from './loss-chart.ts';
import { makeOutputDirectory } from './output-directory.ts';
import { ProgressDisplay } from './progress.ts';
import type { ProgressOutput } from './progress.ts';
import { RunSheets } from './run-sheets.ts';
import { checkRecord, recordOf, writeRecord } from './run-record.ts';
import { StepLog } from './step-log.ts';
import { ValidationLog } from './validation-log.ts';

/** Exit code of a run that was interrupted, as shells have it. */
export const INTERRUPTED = 130;

/** A run that crashes loses at most so many epochs, as in the service. */
const CHECKPOINT_EPOCHS = 10;

/** Where a run writes. */
export class OutputDirectory {
  readonly directory: string;
  readonly resume: boolean;

  /**
   * @param directory - made when absent
   * @param resume - whether an interrupted run is to go on
   * @throws InvalidRequestError when there is none to go on, or one that would be lost
   */
  constructor(directory: string, resume: boolean) {
    this.directory = directory;
    this.resume = resume;
    const isInterrupted = existsSync(this.checkpointFile);
    if (resume && !isInterrupted) {
      throw new InvalidRequestError(
        existsSync(this.inside('lora_weights.safetensors'))
          ? `The run in ${directory} is finished: there is nothing to go on with.`
          : `${this.checkpointFile} does not exist: start without --resume.`,
      );
    }
    if (!resume && isInterrupted) {
      throw new InvalidRequestError(
        `${this.checkpointFile} is of a run that was interrupted: go on with --resume, or delete it to start anew.`,
      );
    }
  }

  get checkpointFile(): string {
    return this.inside('checkpoint.safetensors');
  }

  get recordFile(): string {
    return this.inside('checkpoint.json');
  }

  /** Path of a file in it. */
  inside(name: string): string {
    return path.join(this.directory, name);
  }
}

/** What {@link runTraining} needs. */
export interface TrainingRun {
  trainer: Trainer;
  job: TrainerJob;
  baseModelFingerprint: string;
  /** Micro-steps of one epoch. */
  stepsPerEpoch: number;
  target: OutputDirectory;
  /** Receives progress and where the results are. */
  output: ProgressOutput;
  /** Stops it at the next step, with a checkpoint. */
  signal: AbortSignal;
  /** Contact sheets beside the checkpoints; absent: none. */
  sheet?: SheetStyle | null;
}

/**
 * Trains to the end and writes the results, or stops when it is asked to.
 *
 * @param run - see {@link TrainingRun}
 * @returns the exit code
 * @throws CheckpointIncompatibleError when it is to go on from a checkpoint of another run
 */
export async function runTraining(run: TrainingRun): Promise<number> {
  const { trainer, job, target, output, signal } = run;
  const record = await recordOf(job, run.baseModelFingerprint);
  if (target.resume) await checkRecord(target.recordFile, record);
  await makeOutputDirectory(target.directory);
  const names = (await listPictures(job.imageDirectory)).map((name) => ({ name }));
  const { heldOut } = holdOut(names, job.config);
  if (heldOut.length > 0) output.write(`held out of training: ${heldOut.map(({ name }) => name).join(', ')}\n`);
  output.write('loading the base model, encoding pictures and captions\n');
  const start = await trainer.prepare(job, target.resume ? target.checkpointFile : null, signal);
  await writeRecord(target.recordFile, record);
  const log = new StepLog(target.inside('steps.jsonl'), start.microStepsRun);
  const validations = new ValidationLog(target.inside('validation.jsonl'), job.config, start);
  const display = new ProgressDisplay(output);
  const sheets = sheetsOf(run, display);
  await sheets?.clear();
  const say = (text: string): void => {
    display.end();
    output.write(`${text}\n`);
  };
  const announceStop = (): void => say('stopping after this step');
  signal.addEventListener('abort', announceStop, { once: true });
  let result: { position: TrainerPosition; stopped: boolean };
  try {
    const onStep = stepMonitor(run, start, display);
    result = await trainInChunks(run, { start, validations, sheets, say }, (report) => {
      log.append(report);
      if (!signal.aborted) onStep(report);
    });
    if (result.stopped) {
      await trainer.saveCheckpoint(target.checkpointFile);
      output.write(`stopped after ${result.position.microStepsRun} steps: the same command with --resume goes on\n`);
      return INTERRUPTED;
    }
  } finally {
    signal.removeEventListener('abort', announceStop);
    display.end();
    log.close();
  }
  await trainer.exportWeights(target.directory);
  await sheets?.draw(result.position.epochsRun, signal);
  await sheets?.clear();
  const lossChart = target.inside('loss.png');
  const { epochLosses, stepLosses } = log;
  await writeLossChart({ epochLosses, stepLosses, validationLosses: validations.losses }, lossChart);
  for (const file of [target.checkpointFile, target.recordFile]) await rm(file, { force: true });
  output.write(`weights: ${target.inside('lora_weights.safetensors')}\nloss curve: ${lossChart}\n`);
  return 0;
}

async function trainInChunks(
  { trainer, job, stepsPerEpoch, target, signal }: TrainingRun,
  given: {
    start: TrainerPosition;
    validations: ValidationLog;
    sheets: RunSheets | null;
    /** Tells people a line. */
    say: (text: string) => void;
  },
  onStep: (report: StepReport) => void,
): Promise<{ position: TrainerPosition; stopped: boolean }> {
  const { start, validations, sheets, say } = given;
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
      await trainer.saveCheckpoint(target.checkpointFile);
      await sheets?.draw(position.epochsRun, signal);
    }
    const chunkEnd = (Math.floor(position.epochsRun / CHECKPOINT_EPOCHS) + 1) * CHECKPOINT_EPOCHS;
    result = await train(position, Math.min(config.epochs, chunkEnd));
  }
}

function sheetsOf({ trainer, target, output, sheet = null }: TrainingRun, display: ProgressDisplay): RunSheets | null {
  if (sheet === null) return null;
  return new RunSheets(trainer, sheet, target.inside('previews'), (line) => {
    display.end();
    output.write(line);
  });
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
