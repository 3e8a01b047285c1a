import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import type { TrainPhase } from '../../common/types.ts';
import { TestService } from './support/service.ts';
import type { JobMessage } from './support/service.ts';
import { eventually, until } from './support/until.ts';

const ROOT = path.join(import.meta.dirname, '../..');
/** The style of all examples. */
const STYLE_ID = 42;
const POLL_MS = 10_000;
const ENDED: readonly TrainPhase[] = ['done', 'failed', 'cancelled'];

/** What a command is tried on, and what it does. */
interface Rehearsal {
  /** Of the lines that are meant; the first that fits counts. */
  line: RegExp;
  /** Where the job stands. */
  from: TrainPhase;
  /** Where the command brings it. */
  leadsTo?: TrainPhase;
  /** In what the command prints. */
  shows?: RegExp;
  /** Whether the hold is paused afterwards. */
  pausesHold?: boolean;
  /** It ends the run, without a phase and without a word to the backend. */
  terminates?: boolean;
  /** Its query finds nothing here. */
  findsNone?: boolean;
}

/** In the order in which they are tried: each takes the job as the one before has left it, or changes little. */
const REHEARSALS: readonly Rehearsal[] = [
  { line: /namespace update/, from: 'waiting-for-pod', shows: /updated|succeeded/ },
  { line: /search-attribute create/, from: 'waiting-for-pod' },
  { line: / query .* status$/, from: 'waiting-for-pod', shows: /waiting-for-pod/ },
  { line: / query .* (lossCurve|validationCurve)$/, from: 'waiting-for-pod', shows: /\[\]|null/ },
  { line: /task-?queue describe/, from: 'waiting-for-pod', shows: /identity/i },
  { line: /'Completed'/, from: 'waiting-for-pod', findsNone: true },
  { line: /workflow count .*'trainStyle' GROUP BY/, from: 'waiting-for-pod', shows: /\b1, values: Running/ },
  { line: /workflow count .*TrainPhase='waiting-for-pod'/, from: 'waiting-for-pod', shows: /\b1\b/ },
  { line: /workflow list .*'Running'" (-o json|--print_search_attr)/, from: 'waiting-for-pod', shows: /TrainPhase/ },
  { line: /pauseTraining$/, from: 'waiting-for-pod', leadsTo: 'paused' },
  { line: /resumeTraining$/, from: 'paused', leadsTo: 'waiting-for-pod' },
  { line: /workflow list .*'awaiting-operator'"$/, from: 'awaiting-operator', shows: /train-style-42/ },
  { line: /retryNow/, from: 'awaiting-operator', leadsTo: 'waiting-for-pod' },
  { line: /giveUp$/, from: 'awaiting-operator', leadsTo: 'failed' },
  { line: /workflow count .* GROUP BY/, from: 'failed', shows: /values: Failed/ },
  { line: /workflow count .*'Failed'/, from: 'failed', shows: /\b[1-9]\b/ },
  { line: /workflow reset /, from: 'failed', leadsTo: 'waiting-for-pod' },
  { line: / cancel\b/, from: 'waiting-for-pod', leadsTo: 'cancelled' },
  { line: /activity pause/, from: 'waiting-for-pod', pausesHold: true },
  { line: /activity unpause/, from: 'waiting-for-pod', pausesHold: false },
  { line: /activity reset/, from: 'waiting-for-pod' },
  { line: /workflow terminate/, from: 'waiting-for-pod', terminates: true },
];

/** Lines of code blocks that begin with the name of a program, as they stand there. */
function commandsOf(document: string): string[] {
  const blocks = readFileSync(path.join(ROOT, document), 'utf8').matchAll(/^```sh\n(.*?)^```/gms);
  return [...blocks].flatMap(([, block = '']) => block.split('\n').filter((line) => /^(temporal|tctl) /.test(line)));
}

const LINES = ['docs/runbook.md', 'docs/operations.md'].flatMap((document) => commandsOf(document));
const rehearsalOf = (line: string) => REHEARSALS.find((rehearsal) => rehearsal.line.test(line));

describe('commands of runbook.md and operations.md', function () {
  this.timeout(60_000);
  let service: TestService;
  let job: JobMessage;

  before(async () => {
    // One pod that is lost makes a job ask.
    service = await TestService.start({ overrides: { workflow: { podLossBudget: 1 } } });
    await service.startWorker(['bridge', 'control']);
    await startJob();
  });
  after(() => service.stop());

  /** In a shell, with nothing changed but where Temporal is; jq may not be there. */
  async function run(line: string): Promise<string> {
    const { temporalAddress, temporalCliPath, tctlPath } = service.stack;
    for (const program of [temporalCliPath, tctlPath]) assert.ok(existsSync(program), `${program} was not set up`);
    const [command = ''] = line.split(' | jq ');
    const { stdout } = await promisify(execFile)('bash', ['--norc', '-euo', 'pipefail', '-c', command], {
      env: {
        PATH: [path.dirname(temporalCliPath), path.dirname(tctlPath), process.env['PATH']].join(':'),
        HOME: service.directory,
        ...{ TEMPORAL_ADDRESS: temporalAddress, TEMPORAL_NAMESPACE: 'default' },
        ...{ TEMPORAL_CLI_ADDRESS: temporalAddress, TEMPORAL_CLI_NAMESPACE: 'default' },
      },
    });
    return stdout;
  }

  const phaseIs = (phase: TrainPhase) => service.waitForStatus(job, (status) => status.phase === phase, phase, 20_000);

  /** A message of the style; there is no pod, so it waits for one. */
  async function startJob(): Promise<void> {
    job = { ...service.job(1), styleId: STYLE_ID };
    await service.publish(job);
    await phaseIs('waiting-for-pod');
  }

  /** Takes the job as a pod would, and is lost. */
  async function loseAPod(): Promise<void> {
    const { workflowService } = service.client;
    const taskQueue = { name: 'brushwork-pods' };
    const { taskToken } = await service.client.withDeadline(Date.now() + POLL_MS, () =>
      workflowService.pollActivityTaskQueue({ namespace: 'default', taskQueue }),
    );
    const failure = { message: 'The pod is gone.', applicationFailureInfo: { type: 'POD_LOST' } };
    await workflowService.respondActivityTaskFailed({ namespace: 'default', taskToken, failure });
  }

  async function bringTo(wanted: TrainPhase): Promise<void> {
    const { phase } = await service.statusOf(job);
    const isCutShort = !ENDED.includes(phase) && (await hasEnded());
    if (isCutShort) await startJob();
    if (phase === wanted) return;
    const handle = service.handleOf(job);
    if (phase === 'paused') await handle.signal('resumeTraining');
    if (phase === 'awaiting-operator') await handle.signal('retryNow');
    if (ENDED.includes(phase)) await startJob();
    await phaseIs('waiting-for-pod');
    if (wanted === 'paused') await handle.signal('pauseTraining');
    if (wanted === 'awaiting-operator' || wanted === 'failed') await loseAPod();
    if (wanted === 'failed') {
      await phaseIs('awaiting-operator');
      await handle.signal('giveUp');
    }
    await phaseIs(wanted);
  }

  const hasEnded = async () => (await service.handleOf(job).describe()).status.name !== 'RUNNING';

  for (const rehearsal of REHEARSALS) {
    const { from, leadsTo, shows, pausesHold, terminates = false, findsNone = false } = rehearsal;
    for (const line of LINES.filter((one) => rehearsalOf(one) === rehearsal)) {
      it(line, async () => {
        await bringTo(from);
        if (ENDED.includes(from)) await until(hasEnded, 'the end of the run');
        const runId = (await service.handleOf(job).describe()).runId;
        const query = /(?:-q|--query) "(.*?)"/.exec(line)?.[1];
        // What is searched lags a little behind.
        if (query !== undefined && !findsNone) {
          await eventually(async () => assert.ok((await service.client.workflow.count(query)).count > 0, query));
        }
        const told = service.finalNotices(job).length;
        const printed = await run(line);
        if (shows !== undefined) assert.match(printed, shows);
        if (pausesHold !== undefined) {
          const { raw } = await service.handleOf(job).describe();
          const hold = raw.pendingActivities?.find(({ activityType }) => activityType?.name === 'holdPod');
          assert.equal(hold?.paused === true, pausesHold);
        }
        if (terminates) {
          assert.equal((await service.handleOf(job).describe()).status.name, 'TERMINATED');
          assert.equal(service.finalNotices(job).length, told, 'nobody is told');
        }
        if (leadsTo === undefined) return;
        await phaseIs(leadsTo);
        if (ENDED.includes(leadsTo)) await until(hasEnded, 'the end of the run');
        const isSameRun = (await service.handleOf(job).describe()).runId === runId;
        assert.equal(isSameRun, !ENDED.includes(from), 'only a reset makes another run');
      });
    }
  }

  it('are all tried', () => {
    assert.ok(LINES.length > 20);
    assert.deepEqual(
      LINES.filter((line) => rehearsalOf(line) === undefined),
      [],
    );
    assert.deepEqual(
      REHEARSALS.filter((rehearsal) => !LINES.some((line) => rehearsalOf(line) === rehearsal)),
      [],
    );
  });
});
