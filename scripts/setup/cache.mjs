import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { withProgress } from './progress.mjs';

/**
 * The folder that holds everything the set-up brings, shared by all checkouts of one user.
 *
 * @param {NodeJS.ProcessEnv} [env]
 * @returns {string}
 */
export function cacheRoot(env = process.env) {
  return join(env.XDG_CACHE_HOME || join(env.HOME || homedir(), '.cache'), 'brushwork');
}

/**
 * Holds a lock among all processes of this machine while `work` runs. The lock is the kernel's (`flock`), held by a
 * child that ends with this process, also while it still waits, so that no crash leaves anything behind.
 *
 * @template T
 * @param {string} file
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function withLock(file, work) {
  mkdirSync(dirname(file), { recursive: true });
  const flock = ['flock', '--exclusive', file, 'sh', '-c', 'echo locked; exec cat'];
  const holder = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...flock], {
    stdio: ['pipe', 'pipe', 'inherit'],
    detached: true,
  });
  await new Promise((resolve, reject) => {
    holder.once('error', reject);
    holder.once('close', () => reject(new Error(`${file} could not be locked. Check that the folder can be written.`)));
    holder.stdout.once('data', resolve);
  });
  try {
    return await work();
  } finally {
    const closed = new Promise((resolve) => holder.once('close', resolve));
    holder.stdin.end();
    await closed;
  }
}

/**
 * Returns a folder of the cache, made on the first call. It appears complete or not at all: it is made under another
 * name and then renamed. Where several processes want it, one makes it and the others wait.
 *
 * @param {string} name `<part>-<version>`
 * @param {string} label what the progress calls it
 * @param {(folder: string, setStatus: (status: (() => string) | string) => void) => Promise<void>} make fills the folder
 * @returns {Promise<string>} the folder's path
 */
export async function cachedFolder(name, label, make) {
  const folder = join(cacheRoot(), name);
  if (existsSync(folder)) return folder;
  return withProgress(label, async (setStatus) => {
    setStatus('waiting for another set-up');
    return withLock(join(cacheRoot(), 'locks', name), async () => {
      if (existsSync(folder)) return folder;
      setStatus('starting');
      const partial = `${folder}.partial`;
      rmSync(partial, { recursive: true, force: true });
      mkdirSync(partial, { recursive: true });
      try {
        await make(partial, setStatus);
        renameSync(partial, folder);
      } finally {
        rmSync(partial, { recursive: true, force: true });
      }
      return folder;
    });
  });
}

/**
 * @param {string} folder
 * @returns {number} bytes of all files below; 0 where there is no such folder
 */
export function folderBytes(folder) {
  let bytes = 0;
  try {
    for (const entry of readdirSync(folder, { withFileTypes: true })) {
      const path = join(folder, entry.name);
      bytes += entry.isDirectory() ? folderBytes(path) : statSync(path).size;
    }
  } catch {
    return bytes; // files come and go while a download runs
  }
  return bytes;
}

/**
 * A status that shows how much of a download has arrived in a folder.
 *
 * @param {string} folder
 * @param {number} totalMegabytes
 * @returns {() => string}
 */
export function downloadStatus(folder, totalMegabytes) {
  return () => `${Math.min(Math.round(folderBytes(folder) / 1e6), totalMegabytes)}/${totalMegabytes} MB`;
}
