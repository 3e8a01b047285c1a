/** A test that did not run. */
export interface SkippedTest {
  title: string;
  /** Why, in words. */
  reason: string;
}

/** What one runner has to say at its end. */
export interface Summary {
  passed: number;
  failed: number;
  skipped: SkippedTest[];
  /** Faults of the runner itself: it crashed, ran nothing or did not end. Each counts as one failure. */
  faults: string[];
}

/** Nothing has run yet. */
export function emptySummary(): Summary {
  return { passed: 0, failed: 0, skipped: [], faults: [] };
}

/** Sums the summaries of several runners. */
export function addSummaries(summaries: Summary[]): Summary {
  const total = emptySummary();
  for (const summary of summaries) {
    total.passed += summary.passed;
    total.failed += summary.failed;
    total.skipped.push(...summary.skipped);
    total.faults.push(...summary.faults);
  }
  return total;
}

/** Failed tests and faults together. */
export function failureCount(summary: Summary): number {
  return summary.failed + summary.faults.length;
}

/** The line that ends a test run. */
export function summaryLine(summary: Summary): string {
  return `${summary.passed} passed, ${failureCount(summary)} failed, ${summary.skipped.length} skipped`;
}

/** The skipped tests as lines, those with the same reason together. */
export function describeSkipped(skipped: SkippedTest[]): string[] {
  const reasons = Map.groupBy(skipped, (test) => test.reason);
  return [...reasons].flatMap(([reason, tests]) => [
    `${tests.length} skipped: ${reason}`,
    ...tests.map((test) => `  ${test.title}`),
  ]);
}

function decodeEntities(text: string): string {
  const entities: Record<string, string> = { lt: '<', gt: '>', quot: '"', apos: "'", amp: '&' };
  return text.replaceAll(/&(lt|gt|quot|apos|amp);/g, (whole, name: string) => entities[name] ?? whole);
}

/**
 * Reads the JUnit file that `ctest --output-junit` writes.
 *
 * @throws Error when the text is no such file
 */
export function parseCtestJunit(xml: string): Summary {
  if (!xml.includes('<testsuite')) throw new Error('ctest wrote no test suite into its result file.');
  const summary = emptySummary();
  for (const [, attributes = '', body = ''] of xml.matchAll(/<testcase\b([^>]*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g)) {
    const attribute = (text: string, name: string) =>
      decodeEntities(new RegExp(`\\b${name}="([^"]*)"`).exec(text)?.[1] ?? '');
    const title = attribute(attributes, 'name');
    const status = attribute(attributes, 'status');
    const skipped = /<skipped\b([^>]*)>/.exec(body);
    if (status === 'run') summary.passed += 1;
    else if (
      status === 'disabled' ||
      (status === 'notrun' && skipped && attribute(skipped[1] ?? '', 'message') !== '')
    ) {
      summary.skipped.push({ title, reason: attribute(skipped?.[1] ?? '', 'message') || 'disabled in CMakeLists.txt' });
    } else summary.failed += 1;
  }
  return summary;
}
