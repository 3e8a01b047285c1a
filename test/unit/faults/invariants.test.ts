import assert from 'node:assert/strict';
import { littleAgain } from '../../faults/invariants.ts';
import type { Evidence } from '../../faults/invariants.ts';
import type { HistoryEvent } from '../../faults/support/history.ts';

/** Chunks of two epochs that were trained, and checkpoints that were committed, in this order. */
function trained(
  steps: readonly ({ from: number } | { committed: number })[],
): Pick<Evidence, 'events' | 'firstSteps'> {
  const firstSteps: Evidence['firstSteps'] = [];
  const events = steps.map((step, index): HistoryEvent => {
    if ('committed' in step) return { completed: { activity: 'checkpoint', epoch: step.committed } };
    const atMs = index * 10_000;
    firstSteps.push({ atMs: atMs + 10, epoch: step.from });
    const times = { atMs, endedAtMs: atMs + 100, isCalledOff: false };
    const chunk = { fromEpoch: step.from, untilEpoch: step.from + 2, ...times };
    return { scheduled: { activity: 'trainEpochChunk', chunk } };
  });
  return { events, firstSteps };
}

const faultsOf = (steps: Parameters<typeof trained>[0], resumesFrom: number | null) =>
  littleAgain({ ...trained(steps), resumesFrom } as Evidence);

describe('invariant 3, with the newest checkpoint damaged', () => {
  const begin = [{ from: 0 }, { committed: 2 }, { from: 2 }, { from: 4 }];

  it('wants the checkpoint before, and no other', () => {
    assert.deepEqual(faultsOf([...begin, { from: 2 }, { committed: 4 }, { from: 4 }], 2), []);
    assert.match(faultsOf([...begin, { from: 0 }, { from: 2 }, { from: 4 }], 2).join(), /from epoch 0 instead of 2/);
    assert.match(faultsOf([...begin, { committed: 4 }, { committed: 6 }], 2).join(), /did not go back to epoch 2/);
  });

  it('lets what was committed and damaged be trained again, once', () => {
    const end = [...begin, { committed: 4 }, { committed: 6 }];
    assert.deepEqual(faultsOf([...end, { from: 4 }, { committed: 6 }], 4), []);
    assert.match(faultsOf([...end, { from: 4 }, { committed: 6 }, { from: 4 }], 4).join(), /epoch 6 was committed/);
    assert.match(faultsOf([...end, { from: 2 }], 4).join(), /from epoch 2 instead of 4/);
    assert.match(faultsOf([...end, { from: 4 }], null).join(), /epoch 6 was committed/);
  });
});
