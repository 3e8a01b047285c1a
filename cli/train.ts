import { existsSync, realpathSync } from 'node:fs';
import path from 'node:path';
import type { BaseModel } from '../activities/dependencies.ts';
import { loadConfig } from '../common/config.ts';
import type { Config } from '../common/config.ts';
import { configSecrets, createLogger } from '../common/logger.ts';
import type { Trainer, TrainerJob } from '../common/trainer.ts';
import { TRAINING_CONFIG_KEYS } from '../common/training-config-keys.ts';
import { checkResolution, trainingConfigFor } from '../common/training-config.ts';
import type { PartialTrainingConfig } from '../common/training-config.ts';
import { listPictures } from '../native/trainer/dataset.ts';
import { stepsPerEpoch } from '../native/trainer/aspect-buckets.ts';
import { trainedSizes } from '../native/trainer/data-report.ts';
import { TrainerProcess } from '../native/trainer/trainer-process.ts';
import { fetchBaseModel, modelHelp, requireBaseModel } from './base-model.ts';
import { UsageError, integerOption, nonEmptyOption, parseOptions, requireOption, wrapped } from './command.ts';
import type { Command } from './command.ts';
import { lookAtPictures, shortReport } from './look-at-pictures.ts';
import { OutputDirectory, makeOutputDirectory } from './output-directory.ts';
import { readRecipeFile } from './recipe-file.ts';
import { aloneIn } from './run-lock.ts';
import { INTERRUPTED, runTraining } from './training-run.ts';

const HELP = `Usage: brushwork train --images <dir> --output <dir> [options]

Trains a LoRA exactly as the service does, without Temporal, and writes to the output directory:
  lora_weights.safetensors  for diffusers         steps.jsonl  a line for each step
  peft/                     for PEFT              loss.png     the loss curve
  kohya.safetensors         for ComfyUI and the like
  peft_text_encoder/        for PEFT, with train_text_encoder

Options:
  --model      ${modelHelp(15)}
  --images     directory of .jpg, .png and .webp files; <stem>.txt beside a picture holds its caption
  --output     directory to write, made when absent
  --config     JSON file with any of these keys, which docs/training.md explains:
               ${wrapped(Object.keys(TRAINING_CONFIG_KEYS), ' '.repeat(15))}
  --caption    for pictures without a text file; default: training.instancePrompt of the service's configuration
  --threads    CPU threads; equal counts give equal bits; default: trainer.cpuThreads of the service's configuration
  --previews   draws a contact sheet at each checkpoint and at the end: previews/epoch-<epoch>.png, with the section
               previews of the service's configuration; weights stay the same
  --resume     go on from the checkpoint that an interrupted run left in the output directory

With validation_pictures in the configuration, validation.jsonl holds what was measured on the held-out pictures.
A checkpoint is written every 10 epochs. Ctrl-C stops at the next step and leaves one, too; a second Ctrl-C ends at once.
`;

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
      previews: { type: 'boolean', default: false },
      resume: { type: 'boolean', default: false },
    });
    const model = nonEmptyOption('--model', options.model) ?? null;
    const images = requireOption('--images', options.images);
    const output = requireOption('--output', options.output);
    const threads = options.threads === undefined ? null : integerOption('--threads', options.threads, 1, 1024);
    const recipe = readRecipeFile(nonEmptyOption('--config', options.config));
    const service = loadConfig({ roles: [], model });
    requireBaseModel(service);
    refuseAmongPictures(output, images);
    // Told before anything is fetched, and looked at once more when nobody else can change it.
    new OutputDirectory(output, options.resume);
    const stop = new AbortController();
    for (const name of ['SIGINT', 'SIGTERM'] as const) {
      // The trainer ends with this process.
      process.on(name, () => (stop.signal.aborted ? process.exit(INTERRUPTED) : stop.abort()));
    }
    const fallbackCaption = options.caption ?? service.training.instancePrompt;
    const { report } = await lookAtPictures(images, { ...service.training.recipe, ...recipe }, fallbackCaption);
    process.stdout.write(`${shortReport(report)}\n`);
    await makeOutputDirectory(output);
    const trainer = new TrainerProcess({
      device: service.trainer.device,
      threadCount: threads ?? service.trainer.cpuThreads,
      cudaVisibleDevices: service.trainer.cudaVisibleDevices,
      logger: createLogger({ level: 'warn', secrets: configSecrets(service) }),
    });
    try {
      const baseModel = await fetchBaseModel(service, stop.signal);
      const job = await describeJob(trainer, { images, recipe, service, baseModel, fallbackCaption });
      return await aloneIn(output, () =>
        runTraining({
          trainer,
          job,
          baseModelFingerprint: baseModel.fingerprint,
          stepsPerEpoch: stepsPerEpoch(trainedSizes(report, job.config), job.config),
          target: new OutputDirectory(output, options.resume),
          output: process.stdout,
          signal: stop.signal,
          sheet: options.previews ? service.previews.sheet : null,
        }),
      );
    } catch (error) {
      if (!stop.signal.aborted || error !== stop.signal.reason) throw error;
      process.stdout.write('stopped before the first step\n');
      return INTERRUPTED;
    } finally {
      await trainer.kill();
    }
  },
};

/** By whichever link it is reached; what does not exist yet is no link. */
function realPathOf(directory: string): string {
  return existsSync(directory) ? realpathSync(directory) : path.resolve(directory);
}

/** The loss curve would be trained on the next time. */
function refuseAmongPictures(output: string, images: string): void {
  if (realPathOf(output) !== realPathOf(images)) return;
  throw new UsageError('--output is the directory of the pictures, and loss.png would be taken for one: name another.');
}

async function describeJob(
  trainer: Trainer,
  given: {
    images: string;
    recipe: PartialTrainingConfig;
    service: Config;
    baseModel: BaseModel;
    fallbackCaption: string;
  },
): Promise<TrainerJob> {
  const { images, recipe, service, baseModel, fallbackCaption } = given;
  const imageCount = (await listPictures(images)).length;
  const { mixedPrecisionDefault } = await trainer.runtime();
  const nothingRequested = { epochs: null, learningRate: null, batchSize: null };
  const defaults = { ...service.training.recipe, ...recipe };
  const config = trainingConfigFor(nothingRequested, defaults, {
    imageCount: Math.max(1, imageCount),
    mixedPrecisionDefault,
  });
  checkResolution(config, baseModel);
  return {
    jobId: 'cli',
    baseModelDirectory: baseModel.directory,
    baseModelName: baseModel.name,
    imageDirectory: images,
    fallbackCaption,
    config,
    logLabels: {},
  };
}
