import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { CASES } from './cases.ts';
import { idOf } from './fault-case.ts';
import type { FaultCase } from './fault-case.ts';
import { LEFT_OUT } from './machine-faults.ts';
import { REAL_TIME_CASES } from './real-time-cases.ts';
import { runCases } from './run.ts';
import type { CaseResult } from './run.ts';
import { tableOf } from './table.ts';
import type { TableLine } from './table.ts';

// The fault tests: every fault at every moment of a job, with everything real (see docs/faults.md). A *case* is a fault at a
// moment. All cases run in one *world*: one set of servers, and service processes that are killed and replaced. After each
// case the invariants are checked; the weights are compared byte by byte with those of an undisturbed run.

const HELP = `Usage: npm run test:faults -- [options]

  --seed <n>       order of the cases and everything random in them; default: of the clock, and printed
  --only <regexp>  only cases whose id (fault@moment) matches
  --minutes <n>    begins no case after this time
  --subset         the few cases of npm test
  --real-times     partitions of 10, 60 and 300 s with the time limits of production, instead of the ordinary cases
  --lanes <n>      cases side by side; default 3
  --results <file> adds a line of JSON for each case; what ended well there already is left out, so that a long run can be
                   done in parts
  --table <file>   makes the table of docs/faults.md of that file, and runs nothing
  --result <file>  writes what npm test reads
  --list           only lists the cases
`;

/** The cases of `npm test`: a few kinds of fault at the moments where most can go wrong. The whole takes far longer. */
const SUBSET = [
  'pod-killed@checkpoint:data',
  'pod-frozen@checkpoint:data',
  'reset@train:step',
  'checkpoint-data-flipped@checkpoint:end',
  'backend-forgets@notice complete',
  'temporal-restarted@train:step',
  'temporal-restarted@bridge:started',
  'temporal-restarted@notify:taken',
];

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    only: { type: 'string' },
    minutes: { type: 'string' },
    subset: { type: 'boolean', default: false },
    'real-times': { type: 'boolean', default: false },
    lanes: { type: 'string', default: '3' },
    results: { type: 'string' },
    table: { type: 'string' },
    result: { type: 'string' },
    list: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

const isRealTime = values['real-times'];
const KNOWN = isRealTime ? REAL_TIME_CASES : CASES;

/** Of each case the newest result in the file. */
function doneBefore(): TableLine[] {
  if (values.results === undefined || !existsSync(values.results)) return [];
  const lines = readFileSync(values.results, 'utf8').split('\n');
  const parsed = lines.filter((line) => line !== '').map((line) => JSON.parse(line) as TableLine);
  return [...new Map(parsed.map((line) => [idOf(line), line])).values()];
}

function chosen(): FaultCase[] {
  const pattern = new RegExp(values.only ?? '');
  const done = new Set(doneBefore().flatMap((line) => (line.violations.length === 0 ? [idOf(line)] : [])));
  return KNOWN.filter(
    (one) => pattern.test(idOf(one)) && (!values.subset || SUBSET.includes(idOf(one))) && !done.has(idOf(one)),
  );
}

function lineOf({ faultCase, violations, podLosses, tookMs }: CaseResult, seed: number): TableLine {
  const { fault, moment, about, outcome } = faultCase;
  const date = new Date().toISOString().slice(0, 10);
  return { date, seed, fault, moment, about, outcome, violations, podLosses, tookMs };
}

/** Adds a result to the file at once: a long run may be cut short. */
function keep(line: TableLine, file: string): void {
  appendFileSync(file, `${JSON.stringify(line)}\n`);
}

async function main(): Promise<number> {
  if (values.table !== undefined && values.results !== undefined) {
    writeFileSync(values.table, tableOf(doneBefore(), [...CASES, ...REAL_TIME_CASES]));
    return 0;
  }
  const cases = chosen();
  if (values.help || cases.length === 0) {
    console.log(values.help ? HELP : `No case matches ${values.only ?? ''}.`);
    return values.help ? 0 : 2;
  }
  if (values.list) {
    for (const one of cases) console.log(idOf(one));
    console.log(`${cases.length} cases`);
    return 0;
  }
  const seed = Number(values.seed ?? Date.now() % 1_000_000);
  const lanes = Number(values.lanes);
  const startedAtMs = Date.now();
  const deadlineMs = values.minutes === undefined ? Infinity : startedAtMs + Number(values.minutes) * 60_000;
  console.log(`${cases.length} cases, seed ${seed}`);
  for (const name of LEFT_OUT) console.log(`left out on this machine: ${name}`);
  const stop = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, () => stop.abort());
  let done = 0;
  const results = await runCases(cases, {
    ...{ seed, lanes, pods: lanes + 1, isRealTime, deadlineMs, signal: stop.signal },
    onResult: (result) => {
      const { faultCase, violations, tookMs, podLosses, lossReasons } = result;
      done += 1;
      if (values.results !== undefined) keep(lineOf(result, seed), values.results);
      const mark = violations.length === 0 ? 'ok  ' : 'FAIL';
      const lost = podLosses === 0 ? '' : `, ${podLosses} lost: ${lossReasons.join('; ')}`;
      console.log(`${mark} ${done}/${cases.length} ${idOf(faultCase)} (${(tookMs / 1000).toFixed(1)} s${lost})`);
      for (const violation of violations) console.log(`     ${violation}`);
    },
  });
  const failed = results.filter(({ violations }) => violations.length > 0);
  const lines = results.map((one) => lineOf(one, seed));
  console.log(`\n${tableOf(lines, cases)}`);
  const minutes = (Date.now() - startedAtMs) / 60_000;
  console.log(
    `${results.length - failed.length} passed, ${failed.length} failed, ${cases.length - results.length} not run; seed ${seed}, ${minutes.toFixed(1)} min`,
  );
  // The last look, once everything has ended, may have found more.
  if (values.results !== undefined) for (const one of failed) keep(lineOf(one, seed), values.results);
  for (const { faultCase, violations } of failed) {
    const pattern = `^${idOf(faultCase)}$`;
    console.log(`${violations.join('\n  ')}\n  npm run test:faults -- --seed ${seed} --only '${pattern}'`);
  }
  if (values.result !== undefined) {
    const summary = { passed: results.length - failed.length, failed: failed.length, skipped: [], faults: [] };
    writeFileSync(values.result, JSON.stringify(summary));
  }
  return failed.length === 0 ? 0 : 1;
}

process.exitCode = await main();
