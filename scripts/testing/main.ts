import { isSuiteName, runSuite } from './suites.ts';
import { addSummaries, describeSkipped, failureCount, summaryLine, type Summary } from './summary.ts';

// Runs the named suites one after another and sums what they say.
const words = process.argv.slice(2);
const names = words.filter(isSuiteName);
const unknown = words.filter((word) => !isSuiteName(word));
if (unknown.length > 0 || names.length === 0) {
  console.error(
    `Unknown or no test suite: ${unknown.join(' ')}. There are lint, format, native, unit, workflow, integration, faults.`,
  );
  process.exit(2);
}

const summaries: Summary[] = [];
const lines: string[] = [];
for (const name of names) {
  console.log(`\n== ${name}`);
  const startedAtMs = Date.now();
  const summary = await runSuite(name);
  summaries.push(summary);
  lines.push(`${name}: ${summaryLine(summary)} (${Math.round((Date.now() - startedAtMs) / 1000)} s)`);
}

const total = addSummaries(summaries);
console.log(`\n== summary\n${lines.join('\n')}`);
for (const line of [...describeSkipped(total.skipped), ...total.faults]) console.log(line);
console.log(summaryLine(total));
process.exitCode = failureCount(total) === 0 ? 0 : 1;
