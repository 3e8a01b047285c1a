import assert from 'node:assert/strict';
import { ChildProcess } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { mock } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { CancelledFailure } from '@temporalio/common';
import pino from 'pino';
import { createPodActivities } from '../../../activities/index.ts';
import { STOP_LIMIT_MS } from '../../../activities/train-epoch-chunk.ts';
import type { TrainEpochChunkResult } from '../../../common/activity-types.ts';
import { loadConfig } from '../../../common/config.ts';
import { writeRandomTokenizer } from '../../../native/trainer/random-base-model.ts';
import { TrainerProcess } from '../../../native/trainer/trainer-process.ts';
import { podCheck } from '../../../worker/pod-check.ts';
import { ENVIRONMENT } from '../common/support/config.ts';
import { PICTURES, chunkInput } from './support/chunk.ts';
import { heartbeatsOf, until } from './support/heartbeats.ts';
import { CONFIG, TestPod } from './support/pod.ts';

/** Of the fake trainer, see `SCENARIOS` in trainer-process.test.ts. */
const HANGS_IN_TRAINING = 9;

describe('trainEpochChunk on a trainer that does not even end by SIGKILL', () => {
  let pod: TestPod;
  let trainer: TrainerProcess;
  let model: string;
  let signals: { mock: { restore: () => void } };

  before(async () => {
    model = await mkdtemp(path.join(tmpdir(), 'brushwork-model-'));
    await writeRandomTokenizer(path.join(model, 'tokenizer'));
  });
  after(() => rm(model, { recursive: true }));

  beforeEach(async () => {
    pod = new TestPod();
    await pod.withPictures(PICTURES);
    const entryFile = path.join(import.meta.dirname, '../native/trainer/fake-trainer-main.ts');
    const logger = pino({ level: 'silent' });
    trainer = new TrainerProcess({ device: 'auto', threadCount: 1, logger, entryFile, killLimitMs: 100 });
    const baseModel = { directory: model, fingerprint: 'model-1', name: 'tiny', sideMultiplePx: 16 };
    Object.assign(pod.deps, { trainer, baseModel: () => Promise.resolve(baseModel) });
    Object.assign(pod.deps.timing, { stallMs: 500, loadStallMs: 9_000 });
    signals = mock.method(ChildProcess.prototype, 'kill', () => true);
  });
  afterEach(async () => {
    signals.mock.restore();
    await trainer.kill();
    pod.close();
  });

  function run(): Promise<TrainEpochChunkResult> {
    const { trainEpochChunk } = createPodActivities(pod.deps);
    const config = { ...CONFIG, seed: HANGS_IN_TRAINING };
    return pod.environment.run(trainEpochChunk, chunkInput(pod, { config }));
  }

  const stepsMade = (beats: unknown[]) => beats.some((beat) => (beat as { step: number }).step > 0);

  it('fails as stalled, sends no more heartbeats, and its pod takes no job', async () => {
    const beats = heartbeatsOf(pod.environment);
    await assert.rejects(run(), { type: 'TRAINING_STALLED' });
    const count = beats.length;
    await sleep(60);
    assert.equal(beats.length, count);
    const means = {
      scratch: pod.directory,
      minFreeDiskMiB: 0,
      rest: { reason: null },
      checkStore: async () => undefined,
    };
    const check = podCheck({ ...means, trainer });
    assert.match((await check()) ?? '', /does not end, not even by SIGKILL/);
    assert.match((await check()) ?? '', /does not end, not even by SIGKILL/);
  });

  it('ends soon after a cancel, and has sent no heartbeat since', async () => {
    pod.deps.timing.stallMs = 9_000;
    const beats = heartbeatsOf(pod.environment);
    const running = run();
    await until(() => stepsMade(beats), 'training', 9_000);
    const count = beats.length;
    const startMs = performance.now();
    pod.environment.cancel();
    await assert.rejects(running, CancelledFailure);
    assert.ok(performance.now() - startMs < STOP_LIMIT_MS + 1_000);
    assert.equal(beats.length, count);
  });
});

describe('a cancel', () => {
  it('finds the trainer idle well within 10 s by the default settings, wherever it comes', () => {
    const { pod } = loadConfig({ env: ENVIRONMENT });
    assert.ok(pod);
    // Heartbeats that come no more often than the throttle allows are sent at once.
    assert.ok(pod.heartbeatThrottleMs <= pod.beatMs);
    assert.ok(pod.beatMs + STOP_LIMIT_MS <= 8_000, 'two seconds are left for calls and for the end of the process');
  });
});
