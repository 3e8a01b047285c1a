import { existsSync, statSync } from 'node:fs';
import path from 'node:path';
import type { BaseModel } from '../activities/dependencies.ts';
import { loadConfig } from '../common/config.ts';
import { InvalidRequestError } from '../common/errors.ts';
import { configSecrets, createLogger } from '../common/logger.ts';
import type { SampleRequest } from '../common/trainer.ts';
import type { SamplerName } from '../common/types.ts';
import { TrainerProcess } from '../native/trainer/trainer-process.ts';
import { fetchBaseModel, modelHelp, requireBaseModel } from './base-model.ts';
import { UsageError, integerOption, nonEmptyOption, numberOption, parseOptions, requireOption } from './command.ts';
import type { Command } from './command.ts';
import { makeOutputDirectory } from './output-directory.ts';
import { INTERRUPTED } from './training-run.ts';

const SAMPLERS: readonly SamplerName[] = ['dpm++', 'ddim'];

/** Sides below draw nothing that can be told, sides above do not fit any GPU. */
const SIDE_LIMITS_PX = [8, 4096] as const;

const HELP = `Usage: brushwork sample --prompt <text> [options]

Draws pictures with a base model and a LoRA, and writes them to the output directory as <number>-seed-<seed>.png, over any
of that name.

Options:
  --model             ${modelHelp(22)}
  --lora              lora_weights.safetensors, kohya.safetensors or a peft directory, as training leaves them, or others' LoRAs
                      for Stable Diffusion 1.x in these formats, LoCon included; default: the base model alone
  --prompt            what to draw; may be given several times
  --output            directory to write, made when absent; default: drawn, in the current directory
  --negative-prompt   what not to draw
  --count             pictures for each prompt, 1 to 10000, each with the next seed; default 1
  --seed              of the first picture, 0 to 9007199254730991; same seed, same picture; default 0
  --steps             1 to 998, more are finer and slower; default 20
  --guidance          how much the prompt counts, 0 to 100, 1: not beyond what the model does by itself; default 7.5
  --sampler           dpm++ (DPM-Solver++ 2M) or ddim, which wants about twice the steps; default dpm++
  --size              side in pixels, 8 to 4096, a multiple of 64 with Stable Diffusion 1.5; default 512
  --width, --height   the same for one side
  --threads           CPU threads; default: trainer.cpuThreads of the service's configuration
`;

const OPTIONS = {
  model: { type: 'string' },
  lora: { type: 'string' },
  prompt: { type: 'string', multiple: true },
  output: { type: 'string', default: 'drawn' },
  'negative-prompt': { type: 'string', default: '' },
  count: { type: 'string', default: '1' },
  seed: { type: 'string', default: '0' },
  steps: { type: 'string', default: '20' },
  guidance: { type: 'string', default: '7.5' },
  sampler: { type: 'string', default: 'dpm++' },
  size: { type: 'string', default: '512' },
  width: { type: 'string' },
  height: { type: 'string' },
  threads: { type: 'string' },
} as const;

/** What a command line asks for. */
interface Drawing {
  /** Null: `BASE_MODEL` counts. */
  model: string | null;
  lora: string | null;
  prompts: string[];
  output: string;
  count: number;
  threads: number | null;
  /** Of the first picture of each prompt. */
  settings: Omit<SampleRequest, 'prompt' | 'file'>;
}

/** `brushwork sample`. */
export const sampleCommand: Command = {
  summary: 'Draw pictures with a base model and a LoRA',
  help: HELP,
  async run(args) {
    const drawing = readDrawing(args);
    const service = loadConfig({ roles: [], model: drawing.model });
    requireBaseModel(service);
    const stop = new AbortController();
    for (const name of ['SIGINT', 'SIGTERM'] as const) {
      process.on(name, () => (stop.signal.aborted ? process.exit(INTERRUPTED) : stop.abort()));
    }
    const trainer = new TrainerProcess({
      device: service.trainer.device,
      threadCount: drawing.threads ?? service.trainer.cpuThreads,
      cudaVisibleDevices: service.trainer.cudaVisibleDevices,
      logger: createLogger({ level: 'warn', secrets: configSecrets(service) }),
    });
    try {
      await makeOutputDirectory(drawing.output);
      const baseModel = await fetchBaseModel(service, stop.signal);
      checkSides(drawing.settings, baseModel);
      const { mixedPrecisionDefault: mixedPrecision } = await trainer.runtime();
      await trainer.openForDrawing({ baseModelDirectory: baseModel.directory, mixedPrecision, lora: drawing.lora });
      await drawAll(trainer, drawing, stop.signal);
      return 0;
    } catch (error) {
      if (!stop.signal.aborted || error !== stop.signal.reason) throw error;
      process.stdout.write('stopped\n');
      return INTERRUPTED;
    } finally {
      await trainer.kill();
    }
  },
};

function readDrawing(args: string[]): Drawing {
  const options = parseOptions(args, OPTIONS);
  const prompts = options.prompt ?? [];
  if (prompts.length === 0) throw new UsageError('--prompt is missing.');
  const sampler = SAMPLERS.find((known) => known === options.sampler);
  if (sampler === undefined) throw new UsageError(`--sampler must be dpm++ or ddim, but is "${options.sampler}".`);
  const lora = nonEmptyOption('--lora', options.lora) ?? null;
  if (lora !== null) checkLora(lora);
  const sizePx = integerOption('--size', options.size, ...SIDE_LIMITS_PX);
  return {
    model: nonEmptyOption('--model', options.model) ?? null,
    lora,
    prompts,
    output: requireOption('--output', options.output),
    count: integerOption('--count', options.count, 1, 10_000),
    threads: options.threads === undefined ? null : integerOption('--threads', options.threads, 1, 1024),
    settings: {
      negativePrompt: options['negative-prompt'],
      seed: integerOption('--seed', options.seed, 0, Number.MAX_SAFE_INTEGER - 10_000),
      stepCount: integerOption('--steps', options.steps, 1, 998),
      guidanceScale: numberOption('--guidance', options.guidance, 0, 100),
      sampler,
      widthPx: options.width === undefined ? sizePx : integerOption('--width', options.width, ...SIDE_LIMITS_PX),
      heightPx: options.height === undefined ? sizePx : integerOption('--height', options.height, ...SIDE_LIMITS_PX),
      lora: lora === null ? 'none' : 'file',
    },
  };
}

function checkLora(lora: string): void {
  if (!existsSync(lora)) throw new UsageError(`--lora ${lora} does not exist.`);
  if (!statSync(lora).isDirectory() || existsSync(path.join(lora, 'adapter_config.json'))) return;
  throw new UsageError(
    `--lora ${lora} is no PEFT directory, as it has no adapter_config.json: name a .safetensors file or the directory ` +
      'peft in it.',
  );
}

/** Says before the model is loaded which sides it can't draw. */
function checkSides(sides: Pick<SampleRequest, 'widthPx' | 'heightPx'>, { name, sideMultiplePx }: BaseModel): void {
  const wrong = [sides.widthPx, sides.heightPx].find((sidePx) => sidePx % sideMultiplePx !== 0);
  if (wrong === undefined) return;
  const near = Math.max(1, Math.round(wrong / sideMultiplePx)) * sideMultiplePx;
  throw new InvalidRequestError(
    `A side of ${wrong} px can't be drawn, but one of ${near} px can: ${name} needs multiples of ${sideMultiplePx} px.`,
  );
}

async function drawAll(trainer: TrainerProcess, drawing: Drawing, signal: AbortSignal): Promise<void> {
  const { prompts, count, output, settings } = drawing;
  let number = 0;
  for (const prompt of prompts) {
    for (let copy = 0; copy < count; copy++) {
      const seed = settings.seed + copy;
      const file = path.join(output, `${++number}-seed-${seed}.png`);
      const startMs = performance.now();
      await trainer.sample({ ...settings, prompt, seed, file }, signal);
      process.stdout.write(`${file}: ${prompt} (${((performance.now() - startMs) / 1000).toFixed(1)} s)\n`);
    }
  }
}
