import { parseArgs } from 'node:util';
import type { ParseArgsConfig } from 'node:util';
import { nearest } from '../common/nearest.ts';

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

type Options = NonNullable<ParseArgsConfig['options']>;

/** A part of a command line, as `parseArgs` of `node:util` tells it apart. */
type Token =
  | { kind: 'option'; name: string; rawName: string; value?: string | undefined; inlineValue?: boolean | undefined }
  | { kind: 'positional'; value: string }
  | { kind: 'option-terminator' };

/**
 * Parses the options of a command; all are strings or flags, and positional arguments are refused. Of an option that is given
 * twice the last one counts, unless it may be.
 *
 * @param args - what follows the command's name
 * @param options - as for `parseArgs` of `node:util`
 * @throws UsageError naming what can't be understood
 */
export function parseOptions<const Known extends Options>(
  args: string[],
  options: Known,
): ReturnType<typeof parseArgs<{ args: string[]; options: Known }>>['values'] {
  // Checked here: strict, it names negative numbers and unknown options in a programmer's words.
  const { values, tokens } = parseArgs({ args, options, strict: false, allowPositionals: true, tokens: true });
  const fault = tokens.map((token) => faultOf(token, options)).find((found) => found !== null);
  if (fault !== undefined) throw new UsageError(fault);
  return values;
}

/** Why a part of a command line can't be understood, or null. */
function faultOf(token: Token, options: Options): string | null {
  if (token.kind === 'option-terminator') return null;
  if (token.kind === 'positional') return `"${token.value}" belongs to no option; a value with spaces needs quotes.`;
  const { name, rawName, value, inlineValue } = token;
  const option = Object.hasOwn(options, name) && rawName.startsWith('--') ? options[name] : undefined;
  if (option === undefined) {
    const hint = nearest(name, Object.keys(options));
    return `There is no option ${rawName}${hint === null ? '.' : `; did you mean --${hint}?`}`;
  }
  if (option.type === 'boolean') return value === undefined ? null : `${rawName} takes no value.`;
  if (value === undefined) return `${rawName} has no value.`;
  const looksLikeOption = inlineValue === false && /^-[^\d.]/.test(value);
  return looksLikeOption
    ? `${rawName} has no value; one that begins with a dash is written ${rawName}=${value}.`
    : null;
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
 * The value of an option that may be left out.
 *
 * @param name - e.g. `--config`
 * @param value - as parsed
 * @throws UsageError when it is there, but empty
 */
export function nonEmptyOption(name: string, value: string | undefined): string | undefined {
  if (value === '') throw new UsageError(`${name} is empty.`);
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
