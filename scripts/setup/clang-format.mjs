import { join } from 'node:path';
import { cachedFolder, cacheRoot } from './cache.mjs';
import { CLANG_FORMAT_WHEEL } from './pins.mjs';
import { unpackWheels } from './wheels.mjs';

const NAME = `clang-format-${CLANG_FORMAT_WHEEL.version}`;

/**
 * Brings the pinned clang-format into the cache: other versions format differently.
 *
 * @returns {Promise<string>} its path
 */
export async function setUpClangFormat() {
  await cachedFolder(NAME, `clang-format ${CLANG_FORMAT_WHEEL.version}`, (folder, setStatus) =>
    unpackWheels([CLANG_FORMAT_WHEEL], folder, setStatus),
  );
  return join(cacheRoot(), NAME, 'clang_format/data/bin/clang-format');
}
