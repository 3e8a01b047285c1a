import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { TestService } from './support/service.ts';
import type { WorkerProcess } from './support/worker-process.ts';

const EPOCHS = 30;

describe('operators with tctl', function () {
  this.timeout(180_000);
  let service: TestService;
  let pod: WorkerProcess;

  before(async () => {
    service = await TestService.start();
    [, pod] = await Promise.all([service.startWorker(['bridge', 'control']), service.startWorker(['pod'])]);
  });
  after(() => service.stop());

  async function tctl(...words: string[]): Promise<string> {
    const global = ['--address', service.stack.temporalAddress, '--namespace', 'default'];
    const { stdout } = await promisify(execFile)(service.stack.tctlPath, [...global, ...words]);
    return stdout;
  }

  it('cancel a running job: it stops within 10 s and the backend hears of it once', async () => {
    const job = service.job(500);
    await service.publish(job);
    await service.waitForStatus(job, ({ phase }) => phase === 'training', 'training');
    const cancelledAtMs = Date.now();
    await tctl('workflow', 'cancel', '--workflow_id', `train-style-${job.styleId}`);
    await assert.rejects(service.resultOf(job), /cancelled/i);
    assert.ok(Date.now() - cancelledAtMs < 10_000, `took ${Date.now() - cancelledAtMs} ms`);
    const notices = service.finalNotices(job);
    assert.deepEqual(
      notices.map(({ kind, body }) => [kind, body?.['error_code']]),
      [['failed', 'CANCELLED']],
    );
    assert.equal((await service.handleOf(job).describe()).status.name, 'CANCELLED');
  });

  it('see where a job stands, and redo a failed one, which goes on from its checkpoint', async () => {
    const job = service.job(EPOCHS);
    const lost = 'pictures/picture-3.jpg';
    const bytes = readFileSync(path.join(service.pictureDirectory, 'picture-3.jpg'));
    const workflowId = `train-style-${job.styleId}`;
    await service.publish(job);
    await service.waitForStatus(job, ({ lastCheckpoint }) => lastCheckpoint?.epoch === 10, 'first checkpoint');
    assert.match(await tctl('workflow', 'query', '-w', workflowId, '-qt', 'status'), /training/);

    // A picture vanishes while the job changes pods: the next one can't find it, and the job fails.
    await service.store.deleteAll('brushwork', [lost]);
    await pod.stop();
    pod = await service.startWorker(['pod']);
    await assert.rejects(service.resultOf(job));
    assert.deepEqual(
      service.finalNotices(job).map(({ kind, body }) => [kind, body?.['error_code']]),
      [['failed', 'IMAGE_NOT_FOUND']],
    );

    await service.putObject(lost, bytes);
    await tctl(
      'workflow',
      'reset',
      '-w',
      workflowId,
      '--reset_type',
      'FirstWorkflowTask',
      '--reason',
      'picture is back',
    );
    assert.equal((await service.resultOf(job)).epochs, EPOCHS);
    const steps = pod.lines.filter((line) => line.msg === 'first step of a chunk' && line['style'] === job.styleId);
    assert.equal(steps[0]?.['epoch'], 10);
    assert.deepEqual(
      service.finalNotices(job).map(({ kind }) => kind),
      ['failed', 'complete'],
    );
  });
});
