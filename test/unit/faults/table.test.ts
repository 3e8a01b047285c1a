import assert from 'node:assert/strict';
import { tableOf } from '../../faults/table.ts';
import type { TableLine } from '../../faults/table.ts';

const LINE: TableLine = {
  ...{ date: '2026-01-02', seed: 1, fault: 'pod-killed', moment: 'train:step', about: 'SIGKILL of the pod' },
  ...{ outcome: 'complete', violations: [], podLosses: 1, tookMs: 2_000 },
};

describe('the table of docs/faults.md', () => {
  it('has a row for each fault, and names those of which no case has run', () => {
    const known = [{ fault: 'pod-killed' }, { fault: 'store-gone' }, { fault: 'store-gone' }];
    const table = tableOf([LINE], known);
    assert.match(table, /^2026-01-02, seeds 1: 1 of 3 cases, 0 with a violation\.$/m);
    assert.match(table, /^\| pod-killed \| SIGKILL of the pod \| complete: train:step ✓ 2 s, 1 pod \|$/m);
    assert.match(table, /^No case has run of: store-gone\.$/m);
    assert.doesNotMatch(tableOf([LINE], [LINE]), /No case/);
  });

  it('says of each moment how it ended', () => {
    const lines: TableLine[] = [
      LINE,
      { ...LINE, moment: 'promote:end', podLosses: 0, tookMs: 400 },
      { ...LINE, moment: 'hold:taken', outcome: 'cancelled', podLosses: 2, violations: ['the weights differ'] },
    ];
    const [row] = tableOf(lines, lines).match(/^\| pod-killed .*$/m) ?? [];
    assert.equal(
      row,
      '| pod-killed | SIGKILL of the pod | complete: train:step ✓ 2 s, 1 pod; promote:end ✓ 0 s / cancelled: **hold:taken ✗** 2 s, 2 pods |',
    );
  });
});
