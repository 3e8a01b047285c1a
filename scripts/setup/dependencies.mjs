import { createHash } from 'node:crypto';
import { existsSync, readFileSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { cacheRoot, withLock } from './cache.mjs';
import { withProgress } from './progress.mjs';
import { capture, which } from './shell.mjs';

/**
 * npm as a command that runs with the chosen Node: npm leaves out optional packages (sharp's binaries are such) that
 * the Node it runs with is too old for.
 *
 * @param {string} nodeFolder
 * @returns {string[]} program and first arguments
 */
function npmCommand(nodeFolder) {
  const npm = process.env.npm_execpath ?? which('npm') ?? 'npm';
  const script = existsSync(npm) ? realpathSync(npm) : npm;
  return /\.[cm]?js$/.test(script) ? [join(nodeFolder, 'node'), script] : [npm];
}

/**
 * @typedef {object} LockFile
 * @property {Record<string, { version?: string, integrity?: string, optional?: boolean }>} packages
 */

/**
 * Compares what should be installed with what npm says that it has installed.
 *
 * @param {LockFile} wanted package-lock.json
 * @param {LockFile} installed node_modules/.package-lock.json
 * @returns {boolean} whether every package is there in its locked version; optional ones may be absent
 */
export function isInstalled(wanted, installed) {
  return Object.entries(wanted.packages).every(([path, entry]) => {
    if (path === '') return true;
    const found = installed.packages[path];
    return found ? found.version === entry.version && found.integrity === entry.integrity : entry.optional === true;
  });
}

/**
 * @param {string} file
 * @returns {LockFile | null}
 */
function readLock(file) {
  return existsSync(file) ? /** @type {LockFile} */ (JSON.parse(readFileSync(file, 'utf8'))) : null;
}

/**
 * Installs the packages of package-lock.json where node_modules is missing or does not match it.
 *
 * @param {string} root the repository
 * @param {string} nodeFolder the folder of the Node to install for
 */
export async function setUpDependencies(root, nodeFolder) {
  const isFresh = () => {
    const wanted = readLock(join(root, 'package-lock.json'));
    const installed = readLock(join(root, 'node_modules/.package-lock.json'));
    return wanted !== null && installed !== null && isInstalled(wanted, installed);
  };
  if (isFresh()) return;
  await withProgress('packages from npm', async (setStatus) => {
    setStatus('waiting for another set-up');
    const name = createHash('sha256').update(root).digest('hex').slice(0, 16);
    await withLock(join(cacheRoot(), 'locks', `node_modules-${name}`), async () => {
      if (isFresh()) return;
      setStatus('installing');
      const [program = 'npm', ...first] = npmCommand(nodeFolder);
      await capture(program, [...first, 'ci', '--no-audit', '--no-fund', '--loglevel=error'], {
        cwd: root,
        env: { ...process.env, PATH: `${nodeFolder}:${process.env.PATH ?? ''}` },
      });
    });
  });
}
