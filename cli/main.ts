#!/usr/bin/env node
import { setImmediate } from 'node:timers/promises';
import { RabbitMqUnreachableError } from '../bridge/dead-letters.ts';
import { ConfigError } from '../common/config.ts';
import { BrushworkError } from '../common/errors.ts';
import { nearest } from '../common/nearest.ts';
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

brushwork <command> --help tells more. Of an option that is given twice the last one counts, unless its help says otherwise.
`;

/** Exit code of a process whose reader has gone away, as shells have it for SIGPIPE. */
const OUTPUT_UNREAD = 141;

async function main(args: string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined || name === '--help' || name === '-h') {
    process.stdout.write(HELP);
    return name === undefined ? 2 : 0;
  }
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (command === undefined) {
    const hint = nearest(name, Object.keys(COMMANDS));
    throw new UsageError(`There is no command "${name}"${hint === null ? '.' : `; did you mean ${hint}?`}`);
  }
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
  else if (error instanceof ConfigError || error instanceof RabbitMqUnreachableError) {
    process.stderr.write(`${error.message}\n`);
  } else if (error instanceof Error && 'syscall' in error) {
    // A full disk, a directory that takes no files, a server that is down: no fault of the program that has a stack.
    process.stderr.write(`The system refused something: ${error.message}. Mend that and try again.\n`);
  } else process.stderr.write(`INTERNAL: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  return 1;
}

/** Ends this process like an interrupt when nobody reads its output any more, or when it can't be written. */
function watchOutput(): void {
  let isBroken = false;
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (isBroken) return;
    isBroken = true;
    const isUnread = error.code === 'EPIPE';
    // A reader like `head` knows that it has gone away.
    if (!isUnread) process.stderr.write(`Standard output can't be written: ${error.message}.\n`);
    // A command that has something to keep listens, and stops in good order.
    if (!process.emit('SIGTERM', 'SIGTERM')) process.exit(isUnread ? OUTPUT_UNREAD : 1);
  });
}

watchOutput();
const exitCode = await main(process.argv.slice(2)).catch(report);
// What could not be written is told in the next turn of the event loop.
await setImmediate();
// Exits even if something still runs: everything worth keeping is on disk or in the bucket by now.
process.exit(exitCode);
