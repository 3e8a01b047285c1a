import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cachedFolder, cacheRoot, folderBytes } from './cache.mjs';
import { capture, which } from './shell.mjs';

/** Where Debian and RabbitMQ's own packages put the scripts; the one in /usr/sbin insists on a system user. */
const SYSTEM_SERVER = '/usr/lib/rabbitmq/bin/rabbitmq-server';

const STATUS_FILE = '/var/lib/dpkg/status';

/**
 * @typedef {object} RabbitmqInstallation
 * @property {string} server path of the `rabbitmq-server` script
 * @property {string} epmd path of Erlang's port mapper
 * @property {Record<string, string>} env what must be set to run either
 */

/**
 * @param {string} osRelease text of /etc/os-release
 * @returns {string} folder name in the cache, e.g. `rabbitmq-debian-12`: each release has its own version
 */
export function rabbitmqCacheName(osRelease) {
  /** @param {string} key */
  const value = (key) => new RegExp(`^${key}="?([^"\\n]*)"?$`, 'm').exec(osRelease)?.[1] ?? 'unknown';
  return `rabbitmq-${value('ID')}-${value('VERSION_ID')}`;
}

/**
 * Removes packages from a dpkg status text, so that apt brings them again in full.
 *
 * @param {string} status text of /var/lib/dpkg/status
 * @param {RegExp} names
 * @returns {string}
 */
export function withoutPackages(status, names) {
  return status
    .split('\n\n')
    .filter((paragraph) => !names.test(/^Package: (.*)$/m.exec(paragraph)?.[1] ?? ''))
    .join('\n\n');
}

function cachedRoot() {
  return join(
    cacheRoot(),
    rabbitmqCacheName(existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : ''),
  );
}

/**
 * Finds epmd below an Erlang installation.
 *
 * @param {string} erlangRoot
 */
function findEpmd(erlangRoot) {
  const runtime = existsSync(erlangRoot) ? readdirSync(erlangRoot).find((name) => name.startsWith('erts-')) : undefined;
  return runtime ? join(erlangRoot, runtime, 'bin', 'epmd') : (which('epmd') ?? 'epmd');
}

/** @returns {RabbitmqInstallation | null} the machine's RabbitMQ, else the cache's; null where there is none yet */
export function findRabbitmq() {
  const system = existsSync(SYSTEM_SERVER) ? SYSTEM_SERVER : which('rabbitmq-server');
  if (system && which('erl')) return { server: system, epmd: findEpmd('/usr/lib/erlang'), env: {} };
  const root = cachedRoot();
  if (!existsSync(root)) return null;
  const erlangRoot = join(root, 'usr/lib/erlang');
  return {
    server: join(root, SYSTEM_SERVER),
    epmd: findEpmd(erlangRoot),
    env: {
      PATH: `${join(root, 'usr/bin')}:${process.env.PATH ?? ''}`,
      LD_LIBRARY_PATH: join(root, 'usr/lib/x86_64-linux-gnu'),
    },
  };
}

/**
 * Brings the distribution's RabbitMQ and Erlang into the cache where the machine has none: apt downloads and verifies
 * the packages with folders of our own, and they are unpacked, not installed. So it needs no root, and no service starts.
 *
 * @throws where apt has no such package, with what to type
 */
export async function setUpRabbitmq() {
  if (findRabbitmq()) return;
  const root = cachedRoot();
  await cachedFolder(root.slice(cacheRoot().length + 1), 'RabbitMQ', async (folder, setStatus) => {
    const apt = join(folder, '.apt');
    const archives = join(apt, 'cache/archives');
    mkdirSync(join(apt, 'lists/partial'), { recursive: true });
    mkdirSync(join(archives, 'partial'), { recursive: true });
    writeFileSync(join(apt, 'status'), withoutPackages(readFileSync(STATUS_FILE, 'utf8'), /^(erlang|rabbitmq)/));
    // The hooks of container images clean the system's folders, which only root can.
    const configuration = join(apt, 'apt.conf');
    writeFileSync(
      configuration,
      [
        '#clear APT::Update::Post-Invoke;',
        '#clear APT::Update::Post-Invoke-Success;',
        '#clear DPkg::Post-Invoke;',
        'Debug::NoLocking "true";',
        'APT::Sandbox::User "";',
        `Dir::State::lists "${join(apt, 'lists')}";`,
        `Dir::State::status "${join(apt, 'status')}";`,
        `Dir::Cache "${join(apt, 'cache')}";`,
        '',
      ].join('\n'),
    );
    setStatus(() => `downloading, ${Math.round(folderBytes(apt) / 1e6)} MB`);
    try {
      await capture('apt-get', ['-c', configuration, 'update']);
      await capture('apt-get', [
        ...['-c', configuration, 'install', '--yes', '--download-only', '--no-install-recommends'],
        'rabbitmq-server',
      ]);
    } catch (error) {
      throw new Error(
        `RabbitMQ could not be downloaded with apt. Type: sudo apt-get install rabbitmq-server\n${error instanceof Error ? error.message : String(error)}`,
      );
    }
    setStatus('unpacking');
    for (const name of readdirSync(archives)) {
      if (name.endsWith('.deb')) await capture('dpkg-deb', ['--extract', join(archives, name), folder]);
    }
    // Debian's `erl` names its root in full.
    const erl = join(folder, 'usr/lib/erlang/bin/erl');
    const script = readFileSync(erl, 'utf8');
    writeFileSync(erl, script.replaceAll(/^(\s*)ROOTDIR=.*$/gm, `$1ROOTDIR='${join(root, 'usr/lib/erlang')}'`));
    rmSync(apt, { recursive: true });
  });
}
