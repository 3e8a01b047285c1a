import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { cachedFolder, cacheRoot } from './cache.mjs';
import { LIBTORCH_VERSION, LIBTORCH_WHEELS } from './pins.mjs';
import { unpackWheels } from './wheels.mjs';

/**
 * @typedef {object} Libtorch
 * @property {string} libtorch the folder that holds include/ and lib/
 * @property {string} nlohmannInclude the folder that holds nlohmann/json.hpp
 */

const NAME = `libtorch-${LIBTORCH_VERSION}`;

/** nlohmann-json comes alone where the machine has its own libtorch. */
const JSON_NAME = 'nlohmann-json-3.12.0';

/**
 * Moves the JSON headers from their place in the wheel to include/.
 *
 * @param {string} folder
 */
function placeJsonHeaders(folder) {
  mkdirSync(join(folder, 'include'), { recursive: true });
  renameSync(join(folder, 'nlohmann_json', 'include', 'nlohmann'), join(folder, 'include', 'nlohmann'));
  rmSync(join(folder, 'nlohmann_json'), { recursive: true });
}

/**
 * Brings libtorch (the `torch` wheel's headers and CPU libraries, with the two CUDA libraries that they are linked
 * against) and the JSON headers into the cache. Where the environment names a libtorch (`LIBTORCH`), that one is used.
 *
 * @returns {Promise<Libtorch>}
 * @throws where `LIBTORCH` names a folder without libtorch in it
 */
export async function setUpLibtorch() {
  const own = process.env.LIBTORCH;
  if (own) {
    if (!existsSync(join(own, 'lib')) || !existsSync(join(own, 'include'))) {
      throw new Error(
        `LIBTORCH is ${own}, but there is no include/ and lib/ in it. Unset it, or name the folder that holds both.`,
      );
    }
    const json = await cachedFolder(JSON_NAME, 'JSON headers', async (folder, setStatus) => {
      await unpackWheels(
        LIBTORCH_WHEELS.filter((pin) => pin.name === 'nlohmann-json'),
        folder,
        setStatus,
      );
      placeJsonHeaders(folder);
    });
    return { libtorch: own, nlohmannInclude: join(json, 'include') };
  }
  await cachedFolder(NAME, `libtorch ${LIBTORCH_VERSION}`, async (folder, setStatus) => {
    await unpackWheels(LIBTORCH_WHEELS, folder, setStatus);
    placeJsonHeaders(folder);
  });
  return { libtorch: join(cacheRoot(), NAME, 'torch'), nlohmannInclude: join(cacheRoot(), NAME, 'include') };
}

/** @returns {boolean} whether {@link setUpLibtorch} has nothing to download */
export function hasLibtorch() {
  return existsSync(join(cacheRoot(), process.env.LIBTORCH ? JSON_NAME : NAME));
}
