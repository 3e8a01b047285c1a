import { Context } from '@temporalio/activity';
import { type DataReport, doubtLines } from '../native/trainer/data-report.ts';

const MAX_DOUBTS = 20;
const MAX_DOUBT_LENGTH = 200;

/**
 * Logs all of a report but captions and hashes: they are the customer's, and of no use to an operator.
 *
 * @param report - of a job's pictures
 */
export function logReport({ pictures, doubts }: DataReport): void {
  const facts = pictures.map(({ caption: _caption, sha256: _sha256, perceptualHash: _hash, ...rest }) => rest);
  Context.current().log.info('data report', { pictures: facts, doubts });
}

/**
 * What is doubtful, cut short: what goes into the workflow's history stays small.
 *
 * @param report - of a job's pictures
 * @param elsewhere - where all of it can be found
 */
export function doubtsForHistory(report: DataReport, elsewhere: string): string[] {
  const lines = doubtLines(report);
  const shown = lines.slice(0, MAX_DOUBTS).map((line) => line.slice(0, MAX_DOUBT_LENGTH));
  const left = lines.length - shown.length;
  return left === 0 ? shown : [...shown, `and ${left} more, see ${elsewhere}`];
}
