import { rename, rm, writeFile } from 'node:fs/promises';
import { InternalError } from './errors.ts';

/**
 * Writes a file that is there as a whole or not at all, however this process ends. What was under that name stays until
 * then, and nothing is left where it fails.
 *
 * @param file - to write, in a directory that exists
 * @param content - of it
 * @throws InternalError that names the file and why it can't be written
 */
export async function writeAtomically(file: string, content: string | Uint8Array): Promise<void> {
  const temporary = `${file}.${process.pid}.part`;
  try {
    await writeFile(temporary, content);
    await rename(temporary, file);
  } catch (error) {
    // Where nothing could be made, nothing is left to remove; the reason is the first error.
    await rm(temporary, { force: true }).catch(() => undefined);
    const reason = error instanceof Error ? error.message : String(error);
    const cure = 'free space there, or check the directory';
    throw new InternalError(`${file} can't be written (${reason}): ${cure}.`, { cause: error });
  }
}
