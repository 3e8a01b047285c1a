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
    assert.match(
      table,
      /^\| pod-killed \| SIGKILL of the pod \| train:step \| 1 complete; 1 lost a pod; at most 2 s \|$/m,
    );
    assert.match(table, /^No case has run of: store-gone\.$/m);
    assert.doesNotMatch(tableOf([LINE], [LINE]), /No case/);
  });
});
