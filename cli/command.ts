import { parseArgs } from 'node:util';
import type { ParseArgsConfig } from 'node:util';

/** Thrown when a command line can't be understood; the process exits with code 2. */
export class UsageError extends Error {}

/** One command of `brushwork`. */
export interface Command {
  /** Half a line for the list of commands. */
  summary: string;
  /** The whole `--help`. */
  help: string;
  /**
   * @param args - what follows the command's name
   * @returns the exit code
   */
  run(args: string[]): Promise<number>;
}

/**
 * Parses the options of a command; all are strings or flags, and positional arguments are refused.
 *
 * @param args - what follows the command's name
 * @param options - as for `parseArgs` of `node:util`
 * @throws UsageError naming what can't be understood
 */
export function parseOptions<const Options extends NonNullable<ParseArgsConfig['options']>>(
  args: string[],
  options: Options,
): ReturnType<typeof parseArgs<{ args: string[]; options: Options }>>['values'] {
  try {
    return parseArgs({ args, options, allowPositionals: false }).values;
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

/**
 * Words for a help text, separated by commas, on as many lines as they need.
 *
 * @param words - e.g. keys
 * @param indent - put in front of every line but the first
 * @param widthChars - of a line, without the indentation
 */
export function wrapped(words: readonly string[], indent: string, widthChars = 100): string {
  const lines: string[] = [];
  for (const [index, word] of words.entries()) {
    const text = index === words.length - 1 ? word : `${word},`;
    const last = lines.at(-1);
    if (last === undefined || last.length + 1 + text.length > widthChars) lines.push(text);
    else lines[lines.length - 1] = `${last} ${text}`;
  }
  return lines.join(`\n${indent}`);
}

/**
 * The value of an option that must be there.
 *
 * @param name - e.g. `--model`
 * @param value - as parsed
 * @throws UsageError when it is absent or empty
 */
export function requireOption(name: string, value: string | undefined): string {
  if (value === undefined || value === '') throw new UsageError(`${name} is missing.`);
  return value;
}

/**
 * A whole number given on the command line.
 *
 * @param name - e.g. `--threads`
 * @param text - as typed
 * @param min - smallest allowed value
 * @param max - largest allowed value
 * @throws UsageError when it is none
 */
export function integerOption(name: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < min || value > max) {
    throw new UsageError(`${name} must be a whole number from ${min} to ${max}, but is "${text}".`);
  }
  return value;
}

/**
 * A number given on the command line.
 *
 * @param name - e.g. `--guidance`
 * @param text - as typed
 * @param min - smallest allowed value
 * @param max - largest allowed value
 * @throws UsageError when it is none
 */
export function numberOption(name: string, text: string, min: number, max: number): number {
  const value = Number(text);
  if (text.trim() === '' || !(value >= min && value <= max)) {
    throw new UsageError(`${name} must be a number from ${min} to ${max}, but is "${text}".`);
  }
  return value;
}
