import { existsSync, mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { cachedFolder, cacheRoot } from './cache.mjs';
import { OLDEST_GO, OLDEST_SELF_UPDATING_GO } from './pins.mjs';
import { capture } from './shell.mjs';
import { isAtLeast, parseVersion } from './versions.mjs';

/**
 * @param {import('./pins.mjs').GoPin} pin
 * @returns {string} where the built program is, or will be
 */
export function goToolPath(pin) {
  return join(cacheRoot(), `${pin.name}-${pin.version}`, pin.name);
}

/**
 * @param {import('./pins.mjs').GoPin} pin
 * @returns {boolean}
 */
export function hasGoTool(pin) {
  return existsSync(goToolPath(pin));
}

/**
 * What must be set for this machine's Go to build the tools: an older one may fetch the toolchain that a tool asks for.
 *
 * @param {string} goVersion output of `go env GOVERSION`, e.g. `go1.24.2`
 * @returns {{ GOTOOLCHAIN?: string }}
 */
export function toolchainEnvironment(goVersion) {
  const version = parseVersion(goVersion);
  if (!version || isAtLeast(version, OLDEST_GO) || !isAtLeast(version, OLDEST_SELF_UPDATING_GO)) return {};
  return { GOTOOLCHAIN: 'auto' };
}

/**
 * Builds a program from the public Go modules into the cache. Go checks every module against the checksum database.
 *
 * @param {import('./pins.mjs').GoPin} pin
 * @returns {Promise<string>} the program's path
 */
export async function buildGoTool(pin) {
  await cachedFolder(`${pin.name}-${pin.version}`, `${pin.name} ${pin.version}`, async (folder, setStatus) => {
    const bin = join(folder, 'bin');
    mkdirSync(bin);
    let modules = 0;
    let packages = 0;
    setStatus(() => `building: ${modules} modules fetched, ${packages} packages compiled`);
    const goVersion = await capture('go', ['env', 'GOVERSION']);
    await capture('go', ['install', '-v', ...pin.flags, `${pin.package}@v${pin.version}`], {
      env: { ...process.env, ...toolchainEnvironment(goVersion), GOBIN: bin },
      onLine: (line) => {
        if (line.startsWith('go: downloading')) modules += 1;
        else packages += 1;
      },
    });
    const built = readdirSync(bin)[0];
    if (!built) throw new Error(`go install made no program for ${pin.package}.`);
    renameSync(join(bin, built), join(folder, pin.name));
    rmSync(bin, { recursive: true });
  });
  return goToolPath(pin);
}
