import { existsSync } from 'node:fs';
import { hasLibtorch } from './libtorch.mjs';
import { isNodeNewEnough } from './node.mjs';
import { OLDEST_BOOTSTRAP_NODE, OLDEST_CMAKE, OLDEST_GO, OLDEST_SELF_UPDATING_GO } from './pins.mjs';
import { findRabbitmq } from './rabbitmq.mjs';
import { hasReferencePython } from './reference-python.mjs';
import { capture, which } from './shell.mjs';
import { hasTctl } from './tctl.mjs';
import { hasTemporal } from './temporal.mjs';
import { hasVersitygw } from './versitygw.mjs';
import { isAtLeast, parseVersion } from './versions.mjs';

/**
 * What a verb needs set up: `addon` is the C++ that Node loads, `native` all of it with its tests, `reference` the Python
 * that it is compared with.
 *
 * @typedef {'node_modules' | 'addon' | 'native' | 'stack' | 'tctl' | 'clang-format' | 'reference'} Part
 */

/**
 * @typedef {object} Missing
 * @property {string} what what is missing, in words
 * @property {string[]} [packages] Debian packages that bring it
 * @property {string} [hint] what to do where no package does
 */

/**
 * One line that names everything that is missing and what to type.
 *
 * @param {Missing[]} missing at least one
 * @returns {string}
 */
export function describeMissing(missing) {
  const packages = [...new Set(missing.flatMap((item) => item.packages ?? []))];
  const remedies = [
    ...(packages.length > 0 ? [`type: sudo apt-get install -y ${packages.join(' ')}`] : []),
    ...missing.flatMap((item) => (item.hint ? [item.hint] : [])),
  ];
  return `Missing: ${missing.map((item) => item.what).join(', ')}. To go on, ${remedies.join('; ')}.`;
}

/**
 * @param {string} command
 * @param {string[]} commandArguments
 * @returns {Promise<number[] | null>} the version that the program prints; null where it is absent or does not run
 */
async function versionOf(command, commandArguments) {
  if (!which(command)) return null;
  try {
    return parseVersion(await capture(command, commandArguments));
  } catch {
    return null;
  }
}

/**
 * @param {string[]} programs what Go would build, and the PATH could bring as well
 * @returns {Promise<Missing | null>}
 */
async function missingGo(programs) {
  const what = `Go ${OLDEST_GO.slice(0, 2).join('.')} or newer`;
  const hint = `install Go as https://go.dev/doc/install says, or put ${programs.join(' and ')} on the PATH`;
  const version = await versionOf('go', ['version']);
  if (!version) return { what, hint };
  if (isAtLeast(version, OLDEST_GO) || isAtLeast(version, OLDEST_SELF_UPDATING_GO)) return null;
  return { what: `${what} (found ${version.join('.')})`, hint };
}

/** @returns {Promise<Missing[]>} */
async function missingForNative() {
  /** @type {Missing[]} */
  const missing = [];
  if (!which('c++') && !which('g++') && !which('clang++')) missing.push({ what: 'a C++ compiler', packages: ['g++'] });
  if (!which('ninja') && !which('make')) missing.push({ what: 'make', packages: ['make'] });
  const cmake = await versionOf('cmake', ['--version']);
  if (!cmake) missing.push({ what: 'CMake', packages: ['cmake'] });
  else if (!isAtLeast(cmake, OLDEST_CMAKE)) {
    missing.push({
      what: `CMake ${OLDEST_CMAKE.slice(0, 2).join('.')} or newer (found ${cmake.join('.')})`,
      hint: 'for CMake type: python3 -m pip install --user cmake',
    });
  }
  return missing;
}

/** @returns {Promise<Missing[]>} */
async function missingPip() {
  if (!which('python3')) return [{ what: 'Python 3 with pip', packages: ['python3', 'python3-pip'] }];
  return (await versionOf('python3', ['-m', 'pip', '--version']))
    ? []
    : [{ what: 'pip for Python 3', packages: ['python3-pip'] }];
}

/** @returns {Promise<Missing[]>} */
async function missingVenv() {
  try {
    await capture('python3', ['-c', 'import ensurepip, venv']);
    return [];
  } catch {
    return [{ what: 'venv for Python 3', packages: ['python3', 'python3-venv'] }];
  }
}

/**
 * Finds everything that the machine must have itself before the given parts can be set up.
 *
 * @param {Set<Part>} parts
 * @returns {Promise<Missing[]>} empty where nothing is missing
 */
export async function findMissing(parts) {
  /** @type {Missing[]} */
  const missing = [];
  const node = parseVersion(process.version);
  if (!node || !isAtLeast(node, OLDEST_BOOTSTRAP_NODE)) {
    missing.push({
      what: `Node 18 or newer (found ${process.version})`,
      hint: 'install Node 24 as https://nodejs.org says',
    });
  }
  if (process.platform !== 'linux' || process.arch !== 'x64') {
    missing.push({
      what: `Linux on x86-64 (found ${process.platform} on ${process.arch})`,
      hint: 'use such a machine',
    });
  }
  if (!which('npm')) missing.push({ what: 'npm', packages: ['npm'] });
  for (const [program, debianPackage] of [
    ['flock', 'util-linux'],
    ['setpriv', 'util-linux'],
    ['tar', 'tar'],
  ]) {
    if (program && debianPackage && !which(program)) missing.push({ what: program, packages: [debianPackage] });
  }
  const builds = parts.has('native') || parts.has('addon');
  if (builds) missing.push(...(await missingForNative()));
  if ((builds && !hasLibtorch()) || parts.has('clang-format')) missing.push(...(await missingPip()));
  if (parts.has('reference') && !hasReferencePython()) missing.push(...(await missingVenv()));
  const toBuild = [
    ...(parts.has('stack') && !hasTemporal() ? ['temporal'] : []),
    ...(parts.has('stack') && !hasVersitygw() ? ['versitygw'] : []),
    ...(parts.has('tctl') && !hasTctl() ? ['tctl'] : []),
  ];
  if (toBuild.length > 0) {
    const go = await missingGo(toBuild);
    if (go) missing.push(go);
  }
  if (parts.has('stack') && !findRabbitmq() && (!which('apt-get') || !existsSync('/var/lib/dpkg/status'))) {
    missing.push({
      what: 'RabbitMQ',
      hint: 'install rabbitmq-server with Erlang as https://www.rabbitmq.com/docs/download says',
    });
  }
  if (!isNodeNewEnough(process.version) && !which('gzip')) missing.push({ what: 'gzip', packages: ['gzip'] });
  return missing;
}
