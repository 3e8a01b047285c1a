import { existsSync, readFileSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { loadConfig } from '../common/config.ts';
import type { Config } from '../common/config.ts';
import { InvalidRequestError } from '../common/errors.ts';
import { createLogger } from '../common/logger.ts';
import type { Trainer, TrainerJob } from '../common/trainer.ts';
import { TRAINING_CONFIG_KEYS, parseTrainingConfig, trainingConfigFor } from '../common/training-config.ts';
import type { PartialTrainingConfig } from '../common/training-config.ts';
import { listPictures } from '../native/trainer/dataset.ts';
import { TrainerProcess } from '../native/trainer/trainer-process.ts';
import { resolveBaseModel } from '../worker/base-model.ts';
import { integerOption, parseOptions, requireOption } from './command.ts';
import type { Command } from './command.ts';
import { writeLossChart } from './loss-chart.ts';
import { ProgressDisplay, downloadDisplay } from './progress.ts';
import { StepLog } from './step-log.ts';

const HELP = `Usage: brushwork train --model <dir|hub id> --images <dir> --output <dir> [options]

Trains a LoRA exactly as the service does, without Temporal, and writes to the output directory:
  lora_weights.safetensors  for diffusers         steps.jsonl  a line for each step
  peft/                     for PEFT              loss.png     the loss curve
  kohya.safetensors         for ComfyUI and the like

Options:
  --model      base model: a directory in diffusers layout, or a hub id (org/name or org/name@revision)
  --images     directory of .jpg, .png and .webp files; <stem>.txt beside a picture holds its caption
  --output     directory to write, made when absent
  --config     JSON file with any of: ${Object.keys(TRAINING_CONFIG_KEYS).join(', ')}
  --caption    for pictures without a text file; default: training.instancePrompt of the service's configuration
  --threads    CPU threads; equal counts give equal bits; default: trainer.cpuThreads of the service's configuration
  --resume     go on from the checkpoint that an interrupted run left in the output directory

Ctrl-C stops at the next step and leaves a checkpoint.
`;

/** Exit code of a run that was interrupted, as shells have it. */
const INTERRUPTED = 130;
const CHECKPOINT_NAME = 'checkpoint.safetensors';

/** `brushwork train`. */
export const trainCommand: Command = {
  summary: 'Train a LoRA from a directory of pictures, without the service',
  help: HELP,
  async run(args) {
    const options = parseOptions(args, {
      model: { type: 'string' },
      images: { type: 'string' },
      output: { type: 'string' },
      config: { type: 'string' },
      caption: { type: 'string' },
      threads: { type: 'string' },
      resume: { type: 'boolean', default: false },
    });
    const model = requireOption('--model', options.model);
    const images = requireOption('--images', options.images);
    const output = requireOption('--output', options.output);
    const threads = options.threads === undefined ? null : integerOption('--threads', options.threads, 1, 1024);
    const recipe = options.config === undefined ? {} : readRecipe(options.config);
    const service = loadConfig({ roles: [] });
    const stop = new AbortController();
    for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, () => stop.abort());
    const logger = createLogger({ level: 'warn', secrets: [] });
    const { directory, name } = await resolveBaseModel(model, {
      ...service.trainer,
      logger,
      signal: stop.signal,
      onProgress: downloadDisplay(process.stdout),
    });
    const trainer = new TrainerProcess({
      device: service.trainer.device,
      threadCount: threads ?? service.trainer.cpuThreads,
      cudaVisibleDevices: service.trainer.cudaVisibleDevices,
      logger,
    });
    try {
      const job = await describeJob(trainer, {
        images,
        recipe,
        service,
        baseModelDirectory: directory,
        baseModelName: name,
        fallbackCaption: options.caption ?? service.training.instancePrompt,
      });
      return await trainTo(output, { trainer, job, resume: options.resume, signal: stop.signal });
    } finally {
      await trainer.kill();
    }
  },
};

function readRecipe(file: string): PartialTrainingConfig {
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new InvalidRequestError(`${file} can't be read as JSON: ${reason}`, { cause: error });
  }
  return parseTrainingConfig(json, file);
}

async function describeJob(
  trainer: Trainer,
  given: {
    images: string;
    recipe: PartialTrainingConfig;
    service: Config;
    baseModelDirectory: string;
    baseModelName: string;
    fallbackCaption: string;
  },
): Promise<TrainerJob> {
  const { images, recipe, service, baseModelDirectory, baseModelName, fallbackCaption } = given;
  const imageCount = (await listPictures(images)).length;
  const { mixedPrecisionDefault } = await trainer.runtime();
  const nothingRequested = { epochs: null, learningRate: null, batchSize: null };
  const defaults = { ...service.training.recipe, ...recipe };
  const config = trainingConfigFor(nothingRequested, defaults, {
    imageCount: Math.max(1, imageCount),
    mixedPrecisionDefault,
  });
  return { jobId: 'cli', baseModelDirectory, baseModelName, imageDirectory: images, fallbackCaption, config };
}

async function trainTo(
  output: string,
  run: { trainer: Trainer; job: TrainerJob; resume: boolean; signal: AbortSignal },
): Promise<number> {
  const { trainer, job, resume, signal } = run;
  const checkpointFile = path.join(output, CHECKPOINT_NAME);
  if (resume && !existsSync(checkpointFile)) {
    throw new InvalidRequestError(`${checkpointFile} does not exist: start without --resume.`);
  }
  await mkdir(output, { recursive: true });
  process.stdout.write('loading the base model, encoding pictures and captions\n');
  const start = await trainer.prepare(job, resume ? checkpointFile : null, signal);
  const log = new StepLog(path.join(output, 'steps.jsonl'), start.microStepsRun);
  const display = new ProgressDisplay(process.stdout);
  const stepsPerEpoch = Math.ceil((await listPictures(job.imageDirectory)).length / job.config.batchSize);
  const startMs = performance.now();
  const { position, stopped } = await trainer.train(
    job.config.epochs,
    (report) => {
      log.append(report);
      const stepsPerSecond = (report.step + 1 - start.microStepsRun) / ((performance.now() - startMs) / 1000);
      const stepsLeft = job.config.epochs * stepsPerEpoch - (report.step + 1);
      display.update({
        epoch: (report.step + 1) / stepsPerEpoch,
        totalEpochs: job.config.epochs,
        loss: report.loss,
        stepsPerSecond,
        remainingSeconds: stepsLeft / stepsPerSecond,
      });
    },
    signal,
  );
  display.end();
  log.close();
  if (stopped) {
    await trainer.saveCheckpoint(checkpointFile);
    process.stdout.write(`stopped after ${position.microStepsRun} steps: the same command with --resume goes on\n`);
    return INTERRUPTED;
  }
  await trainer.exportWeights(output);
  const lossChart = path.join(output, 'loss.png');
  await writeLossChart({ epochLosses: log.epochLosses, stepLosses: log.stepLosses }, lossChart);
  await rm(checkpointFile, { force: true });
  process.stdout.write(`weights: ${path.join(output, 'lora_weights.safetensors')}\nloss curve: ${lossChart}\n`);
  return 0;
}
