import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { cachedFolder, cacheRoot, withLock } from '../../../scripts/setup/cache.mjs';
import { isInstalled } from '../../../scripts/setup/dependencies.mjs';
import { toolchainEnvironment } from '../../../scripts/setup/go.mjs';
import { buildProgress } from '../../../scripts/setup/native.mjs';
import { isNodeNewEnough } from '../../../scripts/setup/node.mjs';
import {
  CLANG_FORMAT_WHEEL,
  LIBTORCH_WHEELS,
  NODE,
  OLDEST_CMAKE,
  TCTL,
  TEMPORAL,
  VERSITYGW,
} from '../../../scripts/setup/pins.mjs';
import { describeMissing } from '../../../scripts/setup/prerequisites.mjs';
import { rabbitmqCacheName, withoutPackages } from '../../../scripts/setup/rabbitmq.mjs';
import type { CommandError } from '../../../scripts/setup/shell.mjs';
import { capture } from '../../../scripts/setup/shell.mjs';
import { isAtLeast, parseVersion } from '../../../scripts/setup/versions.mjs';
import { requirementsFile } from '../../../scripts/setup/wheels.mjs';

const CACHE = path.join(import.meta.dirname, '../../../scripts/setup/cache.mjs');

/** Processes whose command line has this word. */
function processesWith(word: string): number[] {
  return readdirSync('/proc').flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      return readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0').includes(word) ? [Number(name)] : [];
    } catch {
      return [];
    }
  });
}

async function until(done: () => boolean): Promise<void> {
  for (let tries = 0; !done(); tries++) {
    assert.ok(tries < 250, 'waited in vain');
    await sleep(20);
  }
}

describe('set-up: versions', () => {
  it('reads the first version of what programs print', () => {
    assert.deepEqual(parseVersion('go version go1.26.8 linux/amd64'), [1, 26, 8]);
    assert.deepEqual(parseVersion('go1.25'), [1, 25, 0]);
    assert.equal(parseVersion('no number'), null);
  });

  it('compares part by part', () => {
    assert.ok(isAtLeast([22, 19, 0], [22, 19, 0]));
    assert.ok(isAtLeast([24, 0, 0], [22, 19, 0]));
    assert.ok(!isAtLeast([22, 18, 9], [22, 19, 0]));
    assert.ok(isNodeNewEnough('v24.21.0'));
    assert.ok(!isNodeNewEnough('v20.20.2'));
  });

  it('lets only an older Go that can do so fetch its toolchain', () => {
    assert.deepEqual(toolchainEnvironment('go1.26.8'), {});
    assert.deepEqual(toolchainEnvironment('go1.22.1'), { GOTOOLCHAIN: 'auto' });
    assert.deepEqual(toolchainEnvironment('go1.19.8'), {});
  });
});

describe('set-up: what is missing', () => {
  it('names everything in one line, with one command for all packages', () => {
    const line = describeMissing([
      { what: 'pip for Python 3', packages: ['python3-pip'] },
      { what: 'CMake', packages: ['cmake'] },
      { what: 'Go 1.25 or newer', hint: 'install Go as https://go.dev/doc/install says' },
    ]);
    assert.equal(
      line,
      'Missing: pip for Python 3, CMake, Go 1.25 or newer. To go on, type: sudo apt-get install -y python3-pip cmake; ' +
        'install Go as https://go.dev/doc/install says.',
    );
  });
});

describe('set-up: installed packages', () => {
  const wanted = {
    packages: {
      '': { version: '0.1.0' },
      'node_modules/a': { version: '1.0.0', integrity: 'sha512-a' },
      'node_modules/other-platform': { version: '2.0.0', integrity: 'sha512-b', optional: true },
    },
  };

  it('are complete without the optional ones of other platforms', () => {
    assert.ok(isInstalled(wanted, { packages: { 'node_modules/a': { version: '1.0.0', integrity: 'sha512-a' } } }));
  });

  it('are stale when one is absent or has another version or content', () => {
    assert.ok(!isInstalled(wanted, { packages: {} }));
    assert.ok(!isInstalled(wanted, { packages: { 'node_modules/a': { version: '1.0.1', integrity: 'sha512-a' } } }));
    assert.ok(!isInstalled(wanted, { packages: { 'node_modules/a': { version: '1.0.0', integrity: 'sha512-x' } } }));
  });
});

describe('set-up: cache', () => {
  const cacheHome = process.env['XDG_CACHE_HOME'];
  let directory = '';

  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'brushwork-cache-'));
    process.env['XDG_CACHE_HOME'] = directory;
  });

  afterEach(() => {
    if (cacheHome === undefined) delete process.env['XDG_CACHE_HOME'];
    else process.env['XDG_CACHE_HOME'] = cacheHome;
    rmSync(directory, { recursive: true });
  });

  it('leaves no process behind where one is killed that waits for another', async () => {
    const file = path.join(directory, 'lock');
    await withLock(file, async () => {
      const script = `const { withLock } = await import(${JSON.stringify(CACHE)}); await withLock(process.argv[1], async () => {});`;
      const waiting = spawn(process.execPath, ['--input-type=module', '--eval', script, file], { stdio: 'ignore' });
      const helpers = () => processesWith(file).filter((pid) => pid !== waiting.pid);
      // One of ours, and then one of its own.
      const ours = helpers().length;
      await until(() => helpers().length > ours);
      waiting.kill('SIGKILL');
      await until(() => helpers().length === ours);
    });
  });

  it('makes a folder once, though many ask for it at the same time', async () => {
    let made = 0;
    const ask = () =>
      cachedFolder('thing-1.0', 'thing', async (folder) => {
        made += 1;
        await new Promise((resolve) => setTimeout(resolve, 50));
        writeFileSync(path.join(folder, 'file'), 'content');
      });
    const folders = await Promise.all([ask(), ask(), ask()]);
    assert.equal(made, 1);
    assert.deepEqual(new Set(folders), new Set([path.join(cacheRoot(), 'thing-1.0')]));
    assert.equal(readFileSync(path.join(folders[0], 'file'), 'utf8'), 'content');
  });

  it('leaves nothing behind that looks complete when the making fails', async () => {
    const failing = cachedFolder('thing-1.0', 'thing', async (folder) => {
      writeFileSync(path.join(folder, 'file'), 'half');
      throw new Error('network is down');
    });
    await assert.rejects(failing, /network is down/);
    assert.ok(!existsSync(path.join(cacheRoot(), 'thing-1.0')));
    assert.deepEqual(readdirSync(cacheRoot()), ['locks']);
  });
});

describe('set-up: parts', () => {
  it('have their licences named in THIRD_PARTY.md, by version', () => {
    const text = readFileSync(path.join(import.meta.dirname, '../../../THIRD_PARTY.md'), 'utf8');
    const versions = [...LIBTORCH_WHEELS, CLANG_FORMAT_WHEEL, TEMPORAL, TCTL, VERSITYGW, NODE].map(
      (pin) => pin.version,
    );
    for (const version of versions) assert.ok(text.includes(` ${version} `), version);
  });

  it('ask for the CMake that native/CMakeLists.txt asks for', () => {
    const text = readFileSync(path.join(import.meta.dirname, '../../../native/CMakeLists.txt'), 'utf8');
    const wanted = /cmake_minimum_required\(VERSION ([\d.]+)/.exec(text)?.[1] ?? '';
    assert.deepEqual(parseVersion(wanted), OLDEST_CMAKE);
  });

  it('pins every wheel by hash in the way pip enforces', () => {
    const text = requirementsFile([{ name: 'torch', version: '2.11.0', sha256: 'abc', megabytes: 1, keep: [] }]);
    assert.equal(text, 'torch==2.11.0 --hash=sha256:abc\n');
  });

  it('reads the progress of Ninja and of Make', () => {
    assert.equal(buildProgress('[12/80] Building CXX object'), '12/80');
    assert.equal(buildProgress('[  4%] Building CXX object'), '4%');
    assert.equal(buildProgress('-- Configuring done'), null);
  });

  it('keeps the RabbitMQ of each distribution release apart', () => {
    assert.equal(rabbitmqCacheName('ID=debian\nVERSION_ID="12"\n'), 'rabbitmq-debian-12');
    assert.equal(rabbitmqCacheName('NAME="Ubuntu"\nID=ubuntu\nVERSION_ID="24.04"\n'), 'rabbitmq-ubuntu-24.04');
  });

  it('takes packages out of a dpkg status text whole', () => {
    const status = 'Package: adduser\nStatus: ok\n\nPackage: erlang-base\nStatus: ok\n\nPackage: zlib1g\nStatus: ok\n';
    assert.equal(withoutPackages(status, /^erlang/), 'Package: adduser\nStatus: ok\n\nPackage: zlib1g\nStatus: ok\n');
  });

  it('shows all that a failed command printed', async () => {
    const failing = capture('sh', ['-c', 'echo to stdout; echo to stderr >&2; exit 3']);
    await assert.rejects(failing, (error: CommandError) => {
      assert.match(error.message, /ended with exit code 3:\n/);
      assert.match(error.output, /to stdout/);
      assert.match(error.output, /to stderr/);
      return true;
    });
  });
});
