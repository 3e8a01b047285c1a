import { spawn } from 'node:child_process';
import { accessSync, constants, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** A command that ended badly; `output` holds all that it printed. */
export class CommandError extends Error {
  /**
   * @param {string} message
   * @param {string} output
   */
  constructor(message, output) {
    super(output.trim() === '' ? message : `${message}\n${output.trimEnd()}`);
    this.name = 'CommandError';
    this.output = output;
  }
}

/**
 * Finds a program on the PATH.
 *
 * @param {string} name
 * @param {string} [path] the PATH to search, by default the environment's
 * @returns {string | null} its full path; null where there is none
 */
export function which(name, path = process.env.PATH ?? '') {
  for (const folder of path.split(delimiter)) {
    if (folder === '') continue;
    const candidate = join(folder, name);
    try {
      accessSync(candidate, constants.X_OK);
      if (statSync(candidate).isFile()) return candidate;
    } catch {
      continue;
    }
  }
  return null;
}

/**
 * @typedef {object} CaptureOptions
 * @property {NodeJS.ProcessEnv} [env]
 * @property {string} [cwd]
 * @property {(line: string) => void} [onLine] called with each line of standard output and error
 */

/**
 * Makes a signal that ends this process end a child's whole group first: a compiler must not build on unattended.
 *
 * @param {import('node:child_process').ChildProcess} child leader of a process group
 * @returns {() => void} call it when the child has ended
 */
function endWithUs(child) {
  /** @type {[NodeJS.Signals, number][]} */
  const exitCodes = [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ];
  const handlers = exitCodes.map(([signal, exitCode]) => {
    const handler = () => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, 'SIGTERM');
      } catch {
        // It has ended already.
      }
      // Later, so that each child's handler has its turn.
      setImmediate(() => process.exit(exitCode));
    };
    process.on(signal, handler);
    return /** @type {const} */ ([signal, handler]);
  });
  return () => {
    for (const [signal, handler] of handlers) process.off(signal, handler);
  };
}

/**
 * Runs a command with its output kept back.
 *
 * @param {string} command
 * @param {string[]} commandArguments
 * @param {CaptureOptions} [options]
 * @returns {Promise<string>} standard output
 * @throws {CommandError} with everything it printed, where it does not exit with 0
 */
export function capture(command, commandArguments, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, commandArguments, {
      env: options.env ?? process.env,
      cwd: options.cwd,
      stdio: ['ignore', 'pipe', 'pipe'],
      // A process group of its own, so that all of it can be ended together.
      detached: true,
    });
    const letGo = endWithUs(child);
    let stdout = '';
    let everything = '';
    let rest = '';
    /** @param {string} text */
    const feed = (text) => {
      everything += text;
      if (!options.onLine) return;
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) options.onLine(line);
    };
    child.stdout.setEncoding('utf8').on('data', (/** @type {string} */ text) => {
      stdout += text;
      feed(text);
    });
    child.stderr.setEncoding('utf8').on('data', feed);
    child.on('error', (error) => {
      letGo();
      reject(new CommandError(`${command}: ${error.message}`, everything));
    });
    child.on('close', (code, signal) => {
      letGo();
      if (code === 0) resolve(stdout);
      else
        reject(
          new CommandError(
            `${[command, ...commandArguments].join(' ')} ended with ${signal ?? `exit code ${code}`}:`,
            everything,
          ),
        );
    });
  });
}

/**
 * Runs a command on the caller's terminal and passes the interrupts of the terminal on to it.
 *
 * @param {string} command
 * @param {string[]} commandArguments
 * @param {{ env?: NodeJS.ProcessEnv, cwd?: string }} [options]
 * @returns {Promise<number>} its exit code; 128 + the signal's number where a signal ended it
 */
export function runInForeground(command, commandArguments, options = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, commandArguments, {
      env: options.env ?? process.env,
      cwd: options.cwd,
      stdio: 'inherit',
    });
    // The terminal sends Ctrl-C to the child as well; the child decides how to end, this process only waits for it.
    const ignore = () => {};
    const passOn = () => child.kill('SIGTERM');
    process.on('SIGINT', ignore);
    process.on('SIGTERM', passOn);
    const finish = () => {
      process.off('SIGINT', ignore);
      process.off('SIGTERM', passOn);
    };
    child.on('error', (error) => {
      finish();
      reject(error);
    });
    child.on('close', (code, signal) => {
      finish();
      resolve(code ?? (signal === 'SIGINT' ? 130 : signal === 'SIGTERM' ? 143 : 137));
    });
  });
}
