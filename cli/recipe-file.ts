import { readFileSync } from 'node:fs';
import { InvalidRequestError } from '../common/errors.ts';
import { fileFault } from '../common/file-fault.ts';
import { reasonOf } from '../common/logger.ts';
import { parseTrainingConfig } from '../common/training-config.ts';
import type { PartialTrainingConfig } from '../common/training-config.ts';

/**
 * Reads a file given as `--config`.
 *
 * @param file - JSON, or undefined where none was given
 * @returns what it sets
 * @throws InvalidRequestError when it can't be read or is no JSON, or naming every fault at once
 */
export function readRecipeFile(file: string | undefined): PartialTrainingConfig {
  if (file === undefined) return {};
  let json: unknown;
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new InvalidRequestError(`The configuration file ${file} ${fileFault(error)}: check --config.`, {
      cause: error,
    });
  }
  try {
    json = JSON.parse(text);
  } catch (error) {
    // It quotes the file, with its line ends.
    const reason = reasonOf(error).replace(/\s+/g, ' ');
    throw new InvalidRequestError(`${file} can't be read as JSON: ${reason}. Mend the file, or check --config.`, {
      cause: error,
    });
  }
  return parseTrainingConfig(json, file);
}
