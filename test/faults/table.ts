import type { CaseResult } from './run.ts';

const seconds = (ms: number) => `${Math.round(ms / 1000)} s`;

function row(results: CaseResult[]): string {
  const [first] = results;
  if (first === undefined) return '';
  const { fault, about } = first.faultCase;
  const moments = results.map(({ faultCase, violations }) =>
    violations.length === 0 ? faultCase.moment : `**${faultCase.moment}**`,
  );
  const failed = results.filter(({ violations }) => violations.length > 0).length;
  const outcomes = [...Map.groupBy(results, ({ faultCase }) => faultCase.outcome)]
    .map(([outcome, some]) => `${some.length} ${outcome}`)
    .join(', ');
  const slowest = Math.max(...results.map(({ tookMs }) => tookMs));
  const lost = results.filter(({ podLosses }) => podLosses > 0).length;
  const pods = lost === 0 ? '' : `; ${lost} lost a pod`;
  const verdict = failed === 0 ? '' : `; **${failed} violations**`;
  return `| ${fault} | ${about} | ${moments.join(', ')} | ${outcomes}${pods}; at most ${seconds(slowest)}${verdict} |`;
}

/** The results as a Markdown table, a row for each fault. */
export function tableOf(results: CaseResult[], { seed, minutes }: { seed: number; minutes: number }): string {
  const failed = results.filter(({ violations }) => violations.length > 0).length;
  const groups = [...Map.groupBy(results, ({ faultCase }) => `${faultCase.fault} ${faultCase.about}`).values()];
  return [
    `${new Date().toISOString().slice(0, 10)}, seed ${seed}: ${results.length} cases in ${Math.round(minutes)} minutes, ${failed} with a violation.`,
    '',
    '| fault | what happens | moments | how the jobs ended, from the fault on |',
    '| --- | --- | --- | --- |',
    ...groups.map(row),
    '',
  ].join('\n');
}
