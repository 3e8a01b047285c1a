import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { CancelledFailure } from '@temporalio/common';
import { createPodActivities } from '../../../activities/index.ts';
import { checkpointFile } from '../../../activities/job-files.ts';
import type { TrainEpochChunkResult } from '../../../common/activity-types.ts';
import { GpuFaultError } from '../../../common/errors.ts';
import { PREVIEWS } from '../../support/previews.ts';
import { PICTURES, chunkInput } from './support/chunk.ts';
import { until } from './support/heartbeats.ts';
import { CONFIG, TestPod } from './support/pod.ts';

describe('trainEpochChunk with previews', () => {
  let pod: TestPod;

  beforeEach(async () => {
    pod = new TestPod();
    await pod.withPictures(PICTURES);
  });
  afterEach(() => pod.close());

  function run(chunk = chunkInput(pod)): Promise<TrainEpochChunkResult> {
    const { trainEpochChunk } = createPodActivities({ ...pod.deps, previews: PREVIEWS });
    return pod.environment.run(trainEpochChunk, chunk);
  }

  it('draws a sheet after the checkpoint was saved', async () => {
    let saved = false;
    pod.trainer.onSheet = async () => {
      await Promise.resolve();
      saved = existsSync(checkpointFile(pod.jobDirectory, 2));
    };
    const result = await run();
    assert.equal(result.previewFile, `${pod.jobDirectory}/previews/epoch-000002.png`);
    assert.ok(saved && existsSync(result.previewFile));
  });

  it('draws the sheet of a chunk that is the last because training does not get better, whatever it takes', async () => {
    const asked: boolean[] = [];
    const { trainEpochChunk } = createPodActivities({ ...pod.deps, previews: { ...PREVIEWS, maxShare: 0 } });
    const config = { ...CONFIG, epochs: 100, validationPictures: 1, validationEveryEpochs: 1, earlyStopPatience: 3 };
    pod.trainer.validationLossAt = () => 0.5;
    const losses = (count: number) => Array.from({ length: count }, (_, epoch) => ({ epoch, loss: 0.5 }));
    // The first sheet of a job on a pod is always drawn, so only those after it tell.
    for (const [fromEpoch, before] of [
      [0, 0],
      [2, 0],
      [2, 3],
    ] as const) {
      const chunk = chunkInput(pod, { config, fromEpoch, untilEpoch: fromEpoch + 2, validationLosses: losses(before) });
      const { previewFile }: TrainEpochChunkResult = await pod.environment.run(trainEpochChunk, chunk);
      asked.push(previewFile !== null);
    }
    assert.deepEqual(asked, [true, false, true]);
  });

  it('does not mind that none can be drawn, nor a trainer that dies of it', async () => {
    pod.trainer.onSheet = async () => {
      await pod.trainer.kill();
      throw new GpuFaultError('the trainer is gone');
    };
    const first = await run();
    assert.deepEqual([first.epochsRun, first.previewFile], [2, null]);
    const second = await run(chunkInput(pod, { fromEpoch: 2, untilEpoch: 4, checkpointFile: first.checkpointFile }));
    assert.equal(second.stepsRun, 12);
    assert.ok(pod.trainer.calls.includes('prepare epoch-000002.safetensors'));
  });

  it('does not count as stalled while it draws', async () => {
    pod.deps.timing.stallMs = 300;
    pod.trainer.onSheet = () => new Promise((resolve) => setTimeout(resolve, 700));
    assert.notEqual((await run()).previewFile, null);
  });

  it('stops drawing when cancelled', async () => {
    pod.trainer.onSheet = (signal) =>
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason as Error));
      });
    const running = run();
    await until(() => pod.trainer.calls.includes('sheet at 2'), 'drawing');
    pod.environment.cancel();
    await assert.rejects(running, CancelledFailure);
    assert.ok(!pod.trainer.calls.includes('kill'));
  });
});
