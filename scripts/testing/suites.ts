import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { emptySummary, parseCtestJunit, type Summary } from './summary.ts';

/** What `npm test` can run. */
export type SuiteName = 'lint' | 'format' | 'native' | 'unit' | 'workflow' | 'integration' | 'faults';

/** One runner and its limits. */
interface Suite {
  /** The command, given the file for its result. */
  command: (resultFile: string) => string[];
  /** Reads that file; null where the exit code alone counts, as one test. */
  read: ((text: string) => Summary) | null;
  /** All of it must end within this time. */
  limitMs: number;
}

const ROOT = path.join(import.meta.dirname, '../..');
const MINUTE_MS = 60_000;

/** Time that a runner has to end after it has written its result: more means that a test left something open. */
const EXIT_LIMIT_MS = 20_000;

function mochaSuite(folder: string, testLimitMs: number, limitMs: number, extra: string[] = []): Suite {
  return {
    command: (resultFile) => [
      ...['mocha', `test/${folder}/**/*.test.ts`, '--timeout', String(testLimitMs), ...extra],
      ...['--reporter', './scripts/testing/reporter.ts', '--reporter-option', `output=${resultFile}`],
    ],
    read: (text) => JSON.parse(text) as Summary,
    limitMs,
  };
}

const npmScript = (name: string): Suite => ({
  command: () => ['node', 'scripts/run.mjs', name],
  read: null,
  limitMs: 5 * MINUTE_MS,
});

const SUITES: Record<SuiteName, Suite> = {
  lint: npmScript('lint'),
  format: npmScript('format:check'),
  native: {
    command: (resultFile) => [
      ...['ctest', '--test-dir', 'build', '--parallel', '2', '--output-on-failure', '--output-junit', resultFile],
      '--no-tests=error',
    ],
    read: parseCtestJunit,
    limitMs: 10 * MINUTE_MS,
  },
  unit: mochaSuite('unit', 10_000, 6 * MINUTE_MS),
  workflow: mochaSuite('workflow', 60_000, 8 * MINUTE_MS),
  // Its tests mostly wait for real servers: two files at a time, each with servers of its own.
  integration: mochaSuite('integration', 180_000, 15 * MINUTE_MS, ['--parallel', '--jobs', '2']),
  faults: {
    command: (resultFile) => ['node', 'test/faults/main.ts', '--subset', '--seed', '1', '--result', resultFile],
    read: (text) => JSON.parse(text) as Summary,
    limitMs: 6 * MINUTE_MS,
  },
};

/** Whether a word names a suite. */
export function isSuiteName(word: string): word is SuiteName {
  return Object.hasOwn(SUITES, word);
}

/** Runs a command until it ends, or kills all of it when it takes too long. Resolves with what went wrong, or null. */
function runToEnd(command: string[], resultFile: string, limitMs: number): Promise<string | null> {
  const [program = '', ...rest] = command;
  // A group of its own, so that everything that it started can be ended with it.
  const child = spawn(program, rest, { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'], detached: true });
  const killGroup = () => {
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null)
      process.kill(-child.pid, 'SIGKILL');
  };
  const passOn = (signal: NodeJS.Signals) => {
    if (child.pid !== undefined) process.kill(-child.pid, signal);
  };
  process.on('SIGINT', passOn);
  process.on('SIGTERM', passOn);
  process.on('exit', killGroup);
  return new Promise((resolve) => {
    let overtime: string | null = null;
    const startedAtMs = Date.now();
    let resultAtMs: number | null = null;
    const watch = setInterval(() => {
      if (resultAtMs === null && existsSync(resultFile)) resultAtMs = Date.now();
      if (resultAtMs !== null && Date.now() - resultAtMs > EXIT_LIMIT_MS) {
        overtime = `did not end within ${EXIT_LIMIT_MS / 1000} s after its last test: something was left open`;
      } else if (Date.now() - startedAtMs > limitMs) {
        overtime = `did not end within ${limitMs / MINUTE_MS} minutes`;
      }
      if (overtime !== null) killGroup();
    }, 500);
    const finish = (fault: string | null) => {
      clearInterval(watch);
      process.off('SIGINT', passOn);
      process.off('SIGTERM', passOn);
      process.off('exit', killGroup);
      resolve(overtime ?? fault);
    };
    child.once('error', (error) => finish(error.message));
    child.once('exit', (code, signal) => {
      finish(code === 0 ? null : `ended with ${signal === null ? `exit code ${code}` : signal}`);
    });
  });
}

/** Runs one suite, with its output on this terminal. Never throws: what goes wrong is in the summary. */
export async function runSuite(name: SuiteName): Promise<Summary> {
  const suite = SUITES[name];
  const directory = mkdtempSync(path.join(tmpdir(), 'brushwork-test-'));
  const resultFile = path.join(directory, 'result');
  try {
    const fault = await runToEnd(suite.command(resultFile), resultFile, suite.limitMs);
    if (suite.read === null) {
      return fault === null ? { ...emptySummary(), passed: 1 } : { ...emptySummary(), faults: [`${name} ${fault}`] };
    }
    return judge(name, fault, existsSync(resultFile) ? suite.read(readFileSync(resultFile, 'utf8')) : null);
  } catch (error) {
    return { ...emptySummary(), faults: [`${name}: ${error instanceof Error ? error.message : String(error)}`] };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/**
 * Decides what a runner's end means: a bad exit code is explained by failed tests or is a fault of its own, and a runner
 * that ran no test has failed.
 *
 * @param name - of the suite
 * @param fault - how the runner itself ended badly, or null
 * @param result - what it wrote, or null for nothing
 */
export function judge(name: string, fault: string | null, result: Summary | null): Summary {
  if (result === null) return { ...emptySummary(), faults: [`${name} ${fault ?? 'wrote no result'}`] };
  const faults = [...result.faults];
  const isExplained = result.failed > 0 && fault?.startsWith('ended with exit code') === true;
  if (fault !== null && !isExplained) faults.push(`${name} ${fault}`);
  if (result.passed + result.failed + result.skipped.length === 0) faults.push(`${name} ran no test`);
  return { ...result, faults };
}
