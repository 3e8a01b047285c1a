import assert from 'node:assert/strict';
import { createPodActivities } from '../../../activities/index.ts';
import { PodRest } from '../../../activities/pod-rest.ts';
import {
  GpuFaultError,
  GpuOutOfMemoryError,
  ImageInvalidError,
  LossNotFiniteError,
  ModelLoadFailedError,
  StorageUnavailableError,
} from '../../../common/errors.ts';
import { PICTURES, chunkInput } from './support/chunk.ts';
import { TestPod } from './support/pod.ts';

describe('PodRest', () => {
  let nowMs: number;
  let rest: PodRest;

  beforeEach(() => {
    nowMs = 1_000;
    rest = new PodRest(30_000, () => nowMs);
  });

  /** How long the pod rests from now on. */
  function restMs(): number {
    const startMs = nowMs;
    while (rest.reason !== null) nowMs += 10_000;
    return nowMs - startMs;
  }

  it('rests twice as long after each further failure, at most ten minutes', () => {
    assert.equal(rest.reason, null);
    const rests = Array.from({ length: 7 }, () => {
      rest.failed(new GpuFaultError('The GPU has fallen off the bus.'));
      return restMs();
    });
    assert.deepEqual(rests, [30_000, 60_000, 120_000, 240_000, 480_000, 600_000, 600_000]);
  });

  it('says why', () => {
    rest.failed(new ModelLoadFailedError('unet/config.json is missing.'));
    assert.equal(rest.reason, 'Resting for 30 s after MODEL_LOAD_FAILED: unet/config.json is missing.');
  });

  it('begins anew once a chunk was trained', () => {
    rest.failed(new GpuFaultError('One.'));
    rest.failed(new GpuFaultError('Two.'));
    restMs();
    rest.worked();
    rest.failed(new GpuFaultError('Three.'));
    assert.equal(restMs(), 30_000);
  });

  it("does not rest for what is the job's or somebody else's fault", () => {
    rest.failed(new GpuOutOfMemoryError('Too big.'));
    rest.failed(new LossNotFiniteError('NaN.'));
    rest.failed(new StorageUnavailableError('Down.'));
    rest.failed(new ImageInvalidError('3.png is no picture.'));
    rest.failed(new Error('Something.'));
    assert.equal(rest.reason, null);
  });
});

describe('a pod whose trainer fails', () => {
  let pod: TestPod;

  beforeEach(async () => {
    pod = new TestPod();
    await pod.withPictures(PICTURES);
  });
  afterEach(() => pod.close());

  it('rests, twice as long after the next failure, and works off its past with a chunk', async () => {
    const rest = new PodRest(60_000);
    const { trainEpochChunk } = createPodActivities({ ...pod.deps, rest });
    const train = () => pod.environment.run(trainEpochChunk, chunkInput(pod));
    pod.trainer.onStep = () => Promise.reject(new GpuFaultError('Gone.'));
    await assert.rejects(train());
    assert.match(rest.reason ?? '', /^Resting for 60 s after GPU_FAULT/);
    await assert.rejects(train());
    assert.match(rest.reason ?? '', /^Resting for 120 s/);
    pod.trainer.onStep = () => Promise.resolve();
    await train();
    pod.trainer.onStep = () => Promise.reject(new GpuFaultError('Gone.'));
    await assert.rejects(pod.environment.run(trainEpochChunk, chunkInput(pod, { fromEpoch: 2, untilEpoch: 4 })));
    assert.match(rest.reason ?? '', /^Resting for 60 s/);
  });
});
