/** A case that was run, as it is kept in a file. */
export interface TableLine {
  date: string;
  seed: number;
  fault: string;
  moment: string;
  about: string;
  outcome: string;
  violations: string[];
  podLosses: number;
  tookMs: number;
}

const seconds = (ms: number) => `${Math.round(ms / 1000)} s`;
const isBad = ({ violations }: TableLine) => violations.length > 0;

function unique(values: readonly string[]): string[] {
  return [...new Set(values)];
}

/** E.g. `train:step ✓ 9 s, 1 pod`. */
function ending(line: TableLine): string {
  const { moment, podLosses, tookMs } = line;
  const pods = podLosses === 0 ? '' : `, ${podLosses} ${podLosses === 1 ? 'pod' : 'pods'}`;
  return `${isBad(line) ? `**${moment} ✗**` : `${moment} ✓`} ${seconds(tookMs)}${pods}`;
}

function row(lines: TableLine[]): string {
  const [first] = lines;
  if (first === undefined) return '';
  const outcomes = [...Map.groupBy(lines, ({ outcome }) => outcome)].map(
    ([outcome, some]) => `${outcome}: ${some.map(ending).join('; ')}`,
  );
  return `| ${first.fault} | ${first.about} | ${outcomes.join(' / ')} |`;
}

/**
 * The results of one or more runs as a Markdown table, a row for each fault, in it each moment with its outcome.
 *
 * @param lines - of all cases that were run
 * @param known - all cases that there are
 */
export function tableOf(lines: TableLine[], known: readonly Pick<TableLine, 'fault'>[]): string {
  const distinct = unique(lines.map(({ fault, moment }) => `${fault}@${moment}`)).length;
  const dates = unique(lines.map(({ date }) => date)).join(', ');
  const seeds = unique(lines.map(({ seed }) => String(seed))).join(', ');
  const groups = [...Map.groupBy(lines, ({ fault, about }) => `${fault} ${about}`).entries()].sort(([a], [b]) =>
    a < b ? -1 : 1,
  );
  const tried = new Set(lines.map(({ fault }) => fault));
  const untried = unique(known.map(({ fault }) => fault)).filter((fault) => !tried.has(fault));
  return [
    `${dates}, seeds ${seeds}: ${distinct} of ${known.length} cases, ${lines.filter(isBad).length} with a violation.`,
    '',
    '| fault | what happens | how the job ended, and at which moment: how long after the fault, pods that it lost |',
    '| --- | --- | --- |',
    ...groups.map(([, group]) => row(group)),
    '',
    ...(untried.length === 0 ? [] : [`No case has run of: ${untried.join(', ')}.`, '']),
  ].join('\n');
}
