import assert from 'node:assert/strict';
import { judge } from '../../../scripts/testing/suites.ts';
import {
  addSummaries,
  describeSkipped,
  emptySummary,
  failureCount,
  parseCtestJunit,
  summaryLine,
} from '../../../scripts/testing/summary.ts';

const JUNIT = `<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="Linux-c++" tests="5" failures="1" disabled="1" skipped="1">
	<testcase name="adamw_test" classname="adamw_test" time="0.02" status="run"><system-out>ok</system-out></testcase>
	<testcase name="unet_test" classname="unet_test" time="1.5" status="fail"><failure message=""/><system-out/></testcase>
	<testcase name="cuda_test" classname="cuda_test" time="0.1" status="notrun"><skipped message="SKIP_RETURN_CODE=77"/></testcase>
	<testcase name="slow &amp; old" classname="slow" time="0" status="disabled"><skipped message="Disabled"/></testcase>
	<testcase name="empty" classname="empty" time="0" status="run"/>
</testsuite>`;

describe('summary of test runs', () => {
  it('counts every kind of ctest result', () => {
    const summary = parseCtestJunit(JUNIT);
    assert.equal(summaryLine(summary), '2 passed, 1 failed, 2 skipped');
    assert.deepEqual(summary.skipped, [
      { title: 'cuda_test', reason: 'SKIP_RETURN_CODE=77' },
      { title: 'slow & old', reason: 'Disabled' },
    ]);
  });

  it('refuses a ctest result file without a test suite', () => {
    assert.throws(() => parseCtestJunit(''), /no test suite/);
  });

  it('sums over runners and counts a fault as a failure', () => {
    const total = addSummaries([
      { passed: 3, failed: 0, skipped: [{ title: 'a', reason: 'needs a GPU' }], faults: [] },
      { passed: 4, failed: 1, skipped: [{ title: 'b', reason: 'needs a GPU' }], faults: ['native crashed'] },
    ]);
    assert.equal(summaryLine(total), '7 passed, 2 failed, 2 skipped');
    assert.deepEqual(describeSkipped(total.skipped), ['2 skipped: needs a GPU', '  a', '  b']);
  });

  it('fails a runner that wrote no result, ran no test, or ended badly with all tests passed', () => {
    assert.deepEqual(judge('unit', 'ended with SIGSEGV', null).faults, ['unit ended with SIGSEGV']);
    assert.deepEqual(judge('unit', null, null).faults, ['unit wrote no result']);
    assert.deepEqual(judge('unit', null, emptySummary()).faults, ['unit ran no test']);
    const passed = { ...emptySummary(), passed: 2 };
    assert.deepEqual(judge('unit', 'ended with exit code 7', passed).faults, ['unit ended with exit code 7']);
    assert.equal(failureCount(judge('unit', null, passed)), 0);
  });

  it('counts a failed test once, though the runner then ends with an exit code', () => {
    const result = judge('unit', 'ended with exit code 1', { ...emptySummary(), passed: 2, failed: 1 });
    assert.equal(failureCount(result), 1);
  });
});
