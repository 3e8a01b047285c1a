import { existsSync } from 'node:fs';
import { mkdir, rename, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { loadAddon } from '../../native/index.ts';
import { writeRandomBaseModel } from '../../native/trainer/random-base-model.ts';

/** Change the number when the model's layout changes: old copies in caches are not used any more. */
const NAME = 'small-random-model-1';

/**
 * A small base model with Stable Diffusion 1.5's structure and random weights, made once per user.
 *
 * @returns its directory
 */
export async function smallBaseModel(): Promise<string> {
  const cache = path.join(process.env['XDG_CACHE_HOME'] || path.join(os.homedir(), '.cache'), 'brushwork');
  const directory = path.join(cache, NAME);
  if (existsSync(directory)) return directory;
  const unfinished = `${directory}.${process.pid}.part`;
  await mkdir(cache, { recursive: true });
  try {
    await writeRandomBaseModel(loadAddon(), unfinished, 'small', 0);
  } catch (error) {
    await rm(unfinished, { recursive: true, force: true });
    throw error;
  }
  // Renamed when complete, so that an interrupted demo leaves nothing half-made; a concurrent one may have been faster.
  await rename(unfinished, directory).catch(() => rm(unfinished, { recursive: true, force: true }));
  return directory;
}
