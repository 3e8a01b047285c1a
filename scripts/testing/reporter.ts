import { writeFileSync } from 'node:fs';
import Mocha from 'mocha';
import { emptySummary, type Summary } from './summary.ts';

/** A test or suite on which a skip helper has left its reason. */
interface MaybeSkipped {
  skipReason?: string;
  parent?: MaybeSkipped | undefined;
}

function skipReason(test: MaybeSkipped | undefined): string {
  return test === undefined ? 'no reason given' : (test.skipReason ?? skipReason(test.parent));
}

/** Mocha's spec reporter, which also writes a {@link Summary} to the file named by the option `output`. */
export default class SummaryReporter extends Mocha.reporters.Spec {
  readonly #summary: Summary = emptySummary();
  readonly #output: string;

  constructor(runner: Mocha.Runner, options: Mocha.MochaOptions) {
    super(runner, options);
    this.#output = (options.reporterOptions as { output: string }).output;
    runner.on('pass', () => {
      this.#summary.passed += 1;
    });
    runner.on('fail', () => {
      this.#summary.failed += 1;
    });
    runner.on('pending', (test) => {
      this.#summary.skipped.push({ title: test.fullTitle(), reason: skipReason(test) });
    });
    runner.once('end', () => {
      writeFileSync(this.#output, JSON.stringify(this.#summary));
    });
  }
}
