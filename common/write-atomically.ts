import { rename, rm, writeFile } from 'node:fs/promises';

/**
 * Writes a file that is there as a whole or not at all, however this process ends. What was under that name stays until
 * then, and nothing is left where it fails.
 *
 * @param file - to write, in a directory that exists
 * @param content - of it
 */
export async function writeAtomically(file: string, content: string | Uint8Array): Promise<void> {
  const temporary = `${file}.${process.pid}.part`;
  try {
    await writeFile(temporary, content);
    await rename(temporary, file);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
