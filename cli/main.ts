#!/usr/bin/env node
import { ConfigError } from '../common/config.ts';
import { BrushworkError } from '../common/errors.ts';
import { UsageError } from './command.ts';
import type { Command } from './command.ts';
import { inspectCommand } from './inspect.ts';
import { deadLettersCommand } from './dead-letters.ts';
import { makeBaseModelCommand } from './make-base-model.ts';
import { sampleCommand } from './sample.ts';
import { trainCommand } from './train.ts';
import { workerCommand } from './worker.ts';

const COMMANDS: Readonly<Record<string, Command>> = {
  worker: workerCommand,
  train: trainCommand,
  sample: sampleCommand,
  inspect: inspectCommand,
  'make-base-model': makeBaseModelCommand,
  'dead-letters': deadLettersCommand,
};

const HELP = `Usage: brushwork <command> [options]

Trains an artist's style as a LoRA for Stable Diffusion 1.5.

Commands:
${Object.entries(COMMANDS)
  .map(([name, { summary }]) => `  ${name.padEnd(16)} ${summary}`)
  .join('\n')}

brushwork <command> --help tells more.
`;

async function main(args: string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined || name === '--help' || name === '-h') {
    process.stdout.write(HELP);
    return name === undefined ? 2 : 0;
  }
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined) throw new UsageError(`There is no command "${name}".`);
  if (rest.includes('--help') || rest.includes('-h')) {
    process.stdout.write(command.help);
    return 0;
  }
  return command.run(rest);
}

/** One line on standard error, and the exit code that goes with it. */
function report(error: unknown): number {
  if (error instanceof UsageError) {
    const [name = ''] = process.argv.slice(2);
    process.stderr.write(`${error.message} See: brushwork ${Object.hasOwn(COMMANDS, name) ? `${name} ` : ''}--help\n`);
    return 2;
  }
  if (error instanceof BrushworkError) process.stderr.write(`${error.code}: ${error.message}\n`);
  else if (error instanceof ConfigError) process.stderr.write(`${error.message}\n`);
  else process.stderr.write(`INTERNAL: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  return 1;
}

// Exits even if something still runs: everything worth keeping is on disk or in the bucket by now.
process.exit(await main(process.argv.slice(2)).catch(report));
