import { readFileSync } from 'node:fs';
import { InvalidRequestError } from '../common/errors.ts';
import { parseTrainingConfig } from '../common/training-config.ts';
import type { PartialTrainingConfig } from '../common/training-config.ts';

/**
 * Reads a file given as `--config`.
 *
 * @param file - JSON, or undefined where none was given
 * @returns what it sets
 * @throws InvalidRequestError when it is no JSON, or naming every fault at once
 */
export function readRecipeFile(file: string | undefined): PartialTrainingConfig {
  if (file === undefined) return {};
  let json: unknown;
  try {
    json = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new InvalidRequestError(`${file} can't be read as JSON: ${reason}`, { cause: error });
  }
  return parseTrainingConfig(json, file);
}
