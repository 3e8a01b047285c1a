import assert from 'node:assert/strict';
import { existsSync, statSync, utimesSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { GpuFaultError, StorageUnavailableError } from '../../../common/errors.ts';
import type { TrainerRuntime } from '../../../common/trainer.ts';
import { podCheck } from '../../../worker/pod-check.ts';

const RUNTIME: TrainerRuntime = {
  ...{ device: 'cpu', gpuName: null, gpuMemoryMiB: null, torch: '2.11.0', threadCount: 1 },
  mixedPrecisionDefault: 'no',
};

/** Of a pod that lacks nothing. */
const REST_OF_IT = { rest: { reason: null }, checkStore: async () => undefined };

describe('podCheck', () => {
  let scratch: string;
  let kills: number;
  const kill = async () => void kills++;

  before(async () => {
    scratch = await mkdtemp(path.join(tmpdir(), 'pod-check-'));
  });

  beforeEach(() => {
    kills = 0;
  });

  after(() => rm(scratch, { recursive: true }));

  it('finds nothing wrong with a pod that can train', async () => {
    const trainer = { runtime: async () => RUNTIME, kill };
    assert.equal(await podCheck({ scratch, minFreeDiskMiB: 0, trainer, ...REST_OF_IT })(), null);
    assert.equal(kills, 0);
  });

  it('shows that it is alive where others share the work directory', async () => {
    const trainer = { runtime: async () => RUNTIME, kill };
    utimesSync(scratch, new Date(0), new Date(0));
    await podCheck({ scratch, minFreeDiskMiB: 0, trainer, ...REST_OF_IT })();
    assert.ok(Date.now() - statSync(scratch).mtimeMs < 60_000);
  });

  it('finds a pod that rests, and asks the trainer nothing', async () => {
    const trainer = { runtime: () => assert.fail('not asked'), kill };
    const rest = { reason: 'Resting for 30 s.' };
    assert.equal(await podCheck({ scratch, minFreeDiskMiB: 0, trainer, ...REST_OF_IT, rest })(), 'Resting for 30 s.');
  });

  it('finds a store that it can not reach', async () => {
    const trainer = { runtime: async () => RUNTIME, kill };
    const checkStore = () => Promise.reject(new StorageUnavailableError('The store did not answer.'));
    const fault = await podCheck({ scratch, minFreeDiskMiB: 0, trainer, ...REST_OF_IT, checkStore })();
    assert.equal(fault, 'The store did not answer.');
    assert.equal(kills, 0);
  });

  it('finds a disk that is nearly full, and asks the trainer nothing', async () => {
    const trainer = { runtime: () => assert.fail('not asked'), kill };
    const fault = await podCheck({ scratch, minFreeDiskMiB: 2 ** 30, trainer, ...REST_OF_IT })();
    assert.match(fault ?? '', /^Less than 1073741824 MiB \(pod\.minFreeDiskMiB\) are free in /);
  });

  it('finds a GPU that is gone, and lets the next look start anew', async () => {
    const trainer = { runtime: () => Promise.reject(new GpuFaultError('The GPU is gone.')), kill };
    assert.equal(await podCheck({ scratch, minFreeDiskMiB: 0, trainer, ...REST_OF_IT })(), 'The GPU is gone.');
    assert.equal(kills, 1);
  });

  it('finds a trainer that hangs, and ends it', async () => {
    const trainer = { runtime: () => new Promise<never>(() => undefined), kill };
    const fault = await podCheck({ scratch, minFreeDiskMiB: 0, trainer, ...REST_OF_IT, trainerLimitMs: 20 })();
    assert.match(fault ?? '', /did not answer for 0\.02 s/);
    assert.equal(kills, 1);
  });

  it('starts no trainer beside one that does not even die', async () => {
    let runtimes = 0;
    const died = Promise.withResolvers<void>();
    const trainer = {
      runtime: () => (runtimes++ === 0 ? new Promise<never>(() => undefined) : Promise.resolve(RUNTIME)),
      kill: () => died.promise,
    };
    const check = podCheck({ scratch, minFreeDiskMiB: 0, trainer, ...REST_OF_IT, trainerLimitMs: 20 });
    assert.match((await check()) ?? '', /did not answer/);
    const next = check();
    await sleep(20);
    assert.equal(runtimes, 1);
    died.resolve();
    assert.equal(await next, null);
    assert.equal(runtimes, 2);
  });

  it('makes a work directory that is gone again', async () => {
    const trainer = { runtime: async () => RUNTIME, kill };
    const gone = path.join(scratch, 'gone', 'pod-1');
    assert.equal(await podCheck({ scratch: gone, minFreeDiskMiB: 0, trainer, ...REST_OF_IT })(), null);
    assert.ok(existsSync(gone));
  });

  it('finds a work directory that can not be made again', async () => {
    const trainer = { runtime: async () => RUNTIME, kill };
    const file = path.join(scratch, 'file');
    await writeFile(file, '');
    const impossible = path.join(file, 'pod-1');
    const fault = await podCheck({ scratch: impossible, minFreeDiskMiB: 0, trainer, ...REST_OF_IT })();
    assert.match(fault ?? '', /ENOTDIR/);
  });
});
