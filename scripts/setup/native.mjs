import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { withLock } from './cache.mjs';
import { setUpLibtorch } from './libtorch.mjs';
import { withProgress } from './progress.mjs';
import { capture } from './shell.mjs';

/** One translation unit that includes torch/torch.h takes about 2 GB of memory; more jobs than this swap small machines. */
const MAXIMUM_JOBS = 8;

/**
 * @param {string} root the repository
 * @returns {string} the build folder
 */
export function nativeBuildFolder(root) {
  return join(root, 'build');
}

/**
 * Reads how far a build is from a line of Ninja (`[12/80] …`) or Make (`[ 15%] …`).
 *
 * @param {string} line
 * @returns {string | null} e.g. `12/80`; null for other lines
 */
export function buildProgress(line) {
  return /^\[\s*(\d+\/\d+|\d+%)\]/.exec(line)?.[1] ?? null;
}

/**
 * Builds the C++ core, its tests, the plain program and the addon, or whatever of it is out of date.
 *
 * @param {string} root the repository
 * @param {string} nodeFolder the folder of the Node to build for
 * @param {string | null} target one CMake target, or null for all
 * @throws with the compiler's whole output where the build fails
 */
export async function buildNative(root, nodeFolder, target) {
  const { libtorch, nlohmannInclude } = await setUpLibtorch();
  const folder = nativeBuildFolder(root);
  const options = [
    ...['--directory', join(root, 'native'), '--out', folder],
    ...[`--CDLIBTORCH=${libtorch}`, `--CDNLOHMANN_INCLUDE_DIR=${nlohmannInclude}`],
    ...(process.env.BRUSHWORK_CUDA === '1' ? ['--CDBRUSHWORK_CUDA=ON'] : []),
  ];
  const fingerprint = createHash('sha256').update(JSON.stringify(options)).digest('hex');
  const stamp = join(folder, 'configured.sha256');
  const env = { ...process.env, PATH: `${nodeFolder}:${process.env.PATH ?? ''}` };
  const cmakeJs = join(root, 'node_modules/cmake-js/bin/cmake-js');
  /** @param {string[]} words @param {(line: string) => void} [onLine] */
  const run = (words, onLine) =>
    capture(join(nodeFolder, 'node'), [cmakeJs, ...words, ...options], {
      cwd: root,
      env,
      ...(onLine ? { onLine } : {}),
    });

  await withProgress('native build', async (setStatus) => {
    mkdirSync(folder, { recursive: true });
    setStatus('waiting for another set-up');
    await withLock(join(folder, 'lock'), async () => {
      if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== fingerprint) {
        setStatus('configuring');
        rmSync(join(folder, 'CMakeCache.txt'), { force: true });
        await run(['configure']);
        writeFileSync(stamp, fingerprint);
      }
      setStatus('building');
      const jobs = Math.min(availableParallelism(), MAXIMUM_JOBS);
      await run(['build', '--parallel', String(jobs), ...(target === null ? [] : ['--target', target])], (line) => {
        const progress = buildProgress(line);
        if (progress) setStatus(progress);
      });
    });
  });
}
