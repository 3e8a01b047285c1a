import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { readFileSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import sharp from 'sharp';

const DEMO = path.join(import.meta.dirname, '../../scripts/demo.ts');

const RUNS = path.join(import.meta.dirname, '../../.brushwork/demo');

interface Process {
  pid: number;
  commandLine: string;
}

/** All processes that have to do with a directory. */
function processesOf(directory: string): Process[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const read = (file: string): string => readFileSync(`/proc/${pid}/${file}`, 'utf8').replaceAll('\0', ' ');
        const commandLine = read('cmdline');
        return `${commandLine} ${read('environ')}`.includes(directory) ? [{ pid: Number(pid), commandLine }] : [];
      } catch {
        return [];
      }
    });
}

/** Starts a demo and waits until its service is started. */
async function startDemo(): Promise<{
  demo: ChildProcess;
  directory: string;
  exit: Promise<number | null>;
  errors: () => string;
  /** Waits until the demo has said something. */
  said: (text: RegExp) => Promise<void>;
}> {
  const demo = spawn(process.execPath, [DEMO, '--exit'], { stdio: ['ignore', 'pipe', 'pipe'] });
  const exit = new Promise<number | null>((resolve) => demo.once('exit', resolve));
  let errors = '';
  demo.stderr.on('data', (text: Buffer) => (errors += text.toString()));
  let output = '';
  demo.stdout.on('data', (text: Buffer) => (output += text.toString()));
  const said = async (text: RegExp): Promise<void> => {
    while (!text.test(output)) await sleep(50);
  };
  await said(/publishing the job/);
  const directory = path.join(RUNS, readdirSync(RUNS).sort().at(-1) ?? '');
  return { demo, directory, exit, errors: () => errors, said };
}

describe('npm run demo', function () {
  this.timeout(240_000);

  it('trains a style from its message to its weights, then leaves nothing running', async () => {
    const { stdout } = await promisify(execFile)(process.execPath, [DEMO, '--exit', '--epochs', '2']);
    const ending = (name: string): string => {
      const line = stdout.split('\n').find((candidate) => candidate.startsWith(`${name}:`));
      assert.ok(line, `no line "${name}:" in\n${stdout}`);
      return (
        line
          .slice(name.length + 1)
          .trim()
          .split(' ')[0] ?? ''
      );
    };
    const weights = readFileSync(ending('weights'));
    const headerBytes = Number(weights.readBigUInt64LE(0));
    const header = JSON.parse(weights.subarray(8, 8 + headerBytes).toString()) as Record<string, unknown>;
    // 128 modules in Stable Diffusion 1.5's structure, A and B each, and the metadata.
    assert.equal(Object.keys(header).length, 2 * 128 + 1);
    assert.equal((await sharp(ending('loss curve')).metadata()).width, 960);
    const preview = await sharp(ending('preview')).stats();
    assert.ok(
      preview.channels.every(({ stdev }) => stdev > 1),
      'the preview shows something',
    );
    assert.match(
      ending('watch it in the Web UI'),
      /^http:\/\/127\.0\.0\.1:\d+\/namespaces\/default\/workflows\/train-style-1$/,
    );
    assert.ok(!/^web ui:/m.test(stdout), 'a link to what has ended');
    assert.match(stdout, /^epoch 2\/2 {2}loss \d\.\d{4} {2}\d+\.\d\d steps\/s {2}ETA 0 s$/m);
    const directory = path.dirname(ending('preview'));
    assert.deepEqual(processesOf(directory), []);
    rmSync(directory, { recursive: true });
  });

  it('ends at once and leaves nothing running when it is interrupted', async () => {
    const { demo, directory, exit } = await startDemo();
    demo.kill('SIGINT');
    assert.equal(await exit, 130);
    assert.deepEqual(processesOf(directory), []);
    rmSync(directory, { recursive: true });
  });

  it('says which part has ended by itself, and leaves nothing running', async () => {
    const { directory, exit, errors, said } = await startDemo();
    // By then the bridge has started the job, and the demo knows that it is up.
    await said(/^(waiting-for-pod|preparing|training)/m);
    const bridge = processesOf(directory).find(({ commandLine }) => commandLine.includes('--role bridge'));
    process.kill(bridge?.pid ?? assert.fail('no bridge'), 'SIGKILL');
    assert.equal(await exit, 1);
    assert.match(
      errors(),
      /^The demo failed: bridge has ended unexpectedly by SIGKILL: somebody killed it, .*; its last words are at the end of \S+bridge\.log\nLogs are in \S+\n$/,
    );
    assert.deepEqual(processesOf(directory), []);
    rmSync(directory, { recursive: true });
  });

  it('says what it can not understand', async () => {
    const run = promisify(execFile)(process.execPath, [DEMO, '--epochs', 'many']);
    await assert.rejects(run, (error: { code?: number; stderr?: string }) => {
      assert.equal(error.code, 2);
      assert.match(error.stderr ?? '', /--epochs must be a whole number/);
      return true;
    });
  });
});
