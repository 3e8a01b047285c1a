import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { InvalidRequestError } from '../common/errors.ts';
import { loadAddon } from '../native/index.ts';
import { writeRandomBaseModel } from '../native/trainer/random-base-model.ts';
import { UsageError, integerOption, parseOptions, requireOption } from './command.ts';
import type { Command } from './command.ts';
import { makeOutputDirectory } from './output-directory.ts';

const PRESETS = ['tiny', 'small'] as const;

/** What a model consists of; the description that others look for comes last. */
const PARTS = ['scheduler', 'text_encoder', 'tokenizer', 'unet', 'vae', 'model_index.json'] as const;

const HELP = `Usage: brushwork make-base-model --preset tiny|small --output <dir> [--seed <n>]

Writes a base model with Stable Diffusion 1.5's structure, small sizes and random weights, in diffusers layout: for
trying things out where no real model is at hand. What it draws is noise.

Options:
  --preset   tiny (two levels, for tests) or small (four levels, as Stable Diffusion 1.5)
  --output   directory to write, made when absent; one that holds a model is refused
  --seed     of the weights, 0 to 2^53-1; default 0
`;

/** `brushwork make-base-model`. */
export const makeBaseModelCommand: Command = {
  summary: 'Write a small base model with random weights',
  help: HELP,
  async run(args) {
    const options = parseOptions(args, {
      preset: { type: 'string' },
      output: { type: 'string' },
      seed: { type: 'string', default: '0' },
    });
    const wanted = requireOption('--preset', options.preset);
    const preset = PRESETS.find((known) => known === wanted);
    if (preset === undefined) throw new UsageError(`--preset must be tiny or small, but is "${wanted}".`);
    const output = requireOption('--output', options.output);
    const seed = integerOption('--seed', options.seed, 0, Number.MAX_SAFE_INTEGER);
    refuseToOverwrite(output);
    await makeOutputDirectory(output);
    await writeAsAWhole(output, (directory) => writeRandomBaseModel(loadAddon(), directory, preset, seed));
    process.stdout.write(`base model: ${output}\n`);
    return 0;
  },
};

/** Weights that took hours or gigabytes to get are gone with one wrong word. */
function refuseToOverwrite(directory: string): void {
  if (!PARTS.some((part) => existsSync(path.join(directory, part)))) return;
  throw new InvalidRequestError(`${directory} holds a model already: name another directory, or delete that one.`);
}

/**
 * Lets a model be written so that nothing of it is there unless all of it is: what a full disk or a kill leaves would be
 * taken for a model.
 *
 * @param directory - exists and holds no model
 * @param write - writes the model into a directory
 * @throws what `write` throws, with nothing left of what it wrote
 */
export async function writeAsAWhole(directory: string, write: (directory: string) => Promise<void>): Promise<void> {
  const unfinished = path.join(directory, 'model.part');
  // One that was killed has left its own.
  await rm(unfinished, { recursive: true, force: true });
  await mkdir(unfinished);
  try {
    await write(unfinished);
    for (const part of PARTS) await rename(path.join(unfinished, part), path.join(directory, part));
  } finally {
    await rm(unfinished, { recursive: true, force: true });
  }
}
