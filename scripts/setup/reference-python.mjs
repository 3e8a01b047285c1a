import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cachedFolder, cacheRoot, downloadStatus } from './cache.mjs';
import { capture } from './shell.mjs';

/** The packages that the golden files were made with. */
const REQUIREMENTS = fileURLToPath(new URL('../../test/reference/requirements.txt', import.meta.url));

/** What they and their own requirements take on the disk; torch brings CUDA's libraries. */
const INSTALLED_MEGABYTES = 5000;

/** Fails where a package is absent. */
const CHECK = 'import diffusers, peft, prodigyopt, safetensors, torch, transformers';

/** @returns {string} name in the cache, another one for other packages */
function cacheName() {
  return `reference-python-${createHash('sha256').update(readFileSync(REQUIREMENTS)).digest('hex').slice(0, 12)}`;
}

/** @returns {boolean} whether {@link setUpReferencePython} has nothing to install */
export function hasReferencePython() {
  return Boolean(process.env.BRUSHWORK_REFERENCE_PYTHON) || existsSync(join(cacheRoot(), cacheName()));
}

/**
 * Brings a Python with torch, diffusers and PEFT, which the training core is compared with, into the cache. Where the
 * environment names one (`BRUSHWORK_REFERENCE_PYTHON`), that one is used.
 *
 * @returns {Promise<string>} the folder that holds its `python`
 * @throws where the one that is named can't be used
 */
export async function setUpReferencePython() {
  const own = process.env.BRUSHWORK_REFERENCE_PYTHON;
  if (own) {
    try {
      await capture(own, ['-c', CHECK]);
    } catch (error) {
      throw new Error(
        `BRUSHWORK_REFERENCE_PYTHON is ${own}, which can't be used. Unset it, or type: ` +
          `${own} -m pip install -r test/reference/requirements.txt\n${error instanceof Error ? error.message : String(error)}`,
        { cause: error },
      );
    }
    return dirname(own);
  }
  const folder = await cachedFolder(cacheName(), 'Python with torch and diffusers', async (partial, setStatus) => {
    await capture('python3', ['-m', 'venv', partial]);
    setStatus(downloadStatus(partial, INSTALLED_MEGABYTES));
    // By `python -m pip`, since pip's own script names the folder in which it was made.
    const python = join(partial, 'bin/python');
    await capture(python, ['-m', 'pip', 'install', '--quiet', '--no-cache-dir', '--requirement', REQUIREMENTS]);
    await capture(python, ['-c', CHECK]);
  });
  return join(folder, 'bin');
}
