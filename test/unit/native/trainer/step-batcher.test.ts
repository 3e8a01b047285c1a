import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import type { StepReport } from '../../../../common/trainer.ts';
import { StepBatcher } from '../../../../native/trainer/step-batcher.ts';

describe('StepBatcher', () => {
  const reportOf = (step: number): StepReport => ({
    step,
    epoch: 0,
    loss: 1,
    timesteps: [1],
    learningRate: 1e-4,
    durationMs: 1,
  });

  it('sends the first at once, the others together, in order and none lost', async () => {
    const batches: number[][] = [];
    const batcher = new StepBatcher((reports) => batches.push(reports.map(({ step }) => step)));
    for (let step = 0; step < 4; step++) batcher.push(reportOf(step));
    assert.deepEqual(batches, [[0]]);
    await sleep(250);
    assert.deepEqual(batches, [[0], [1, 2, 3]]);
    batcher.push(reportOf(4));
    assert.deepEqual(batches.at(-1), [4]);
    batcher.push(reportOf(5));
    batcher.flush();
    assert.deepEqual(batches.at(-1), [5]);
    await sleep(150);
    assert.equal(batches.length, 4);
  });
});
