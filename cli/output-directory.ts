import { mkdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { InvalidRequestError } from '../common/errors.ts';
import { reasonOf } from '../common/logger.ts';

/**
 * Makes the directory that a command writes to, and those above it.
 *
 * @param directory - may exist already
 * @throws InvalidRequestError when it can't be made
 */
export async function makeOutputDirectory(directory: string): Promise<void> {
  const found = await stat(directory).catch(() => null);
  if (found?.isDirectory() === true) return;
  // Folder by folder: Node's own recursive mkdir never returns below folders that take no files, such as /proc.
  const absolute = path.resolve(directory);
  if (path.dirname(absolute) !== absolute) await makeOutputDirectory(path.dirname(absolute));
  try {
    await mkdir(absolute);
  } catch (error) {
    throw new InvalidRequestError(
      `The output directory ${directory} can't be made: ${reasonOf(error)}. Name another.`,
      {
        cause: error,
      },
    );
  }
}
