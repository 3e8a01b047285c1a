import assert from 'node:assert/strict';
import { TestService } from './support/service.ts';
import type { JobMessage } from './support/service.ts';

const EPOCHS = 2;

describe('bad input and bad neighbours', function () {
  this.timeout(120_000);
  let service: TestService;

  before(async () => {
    service = await TestService.start();
    await Promise.all([service.startWorker(['bridge', 'control']), service.startWorker(['pod'])]);
  });
  after(() => service.stop());
  afterEach(() => service.backend.setBehaviour(null));

  async function failedNotice(job: JobMessage): Promise<{ code: unknown; message: string }> {
    await service.publish(job);
    await assert.rejects(service.resultOf(await started(job)));
    const [notice, ...more] = service.finalNotices(job);
    assert.deepEqual(more, []);
    assert.equal(notice?.kind, 'failed');
    return { code: notice?.body?.['error_code'], message: String(notice?.body?.['error_message']) };
  }

  async function started(job: JobMessage): Promise<JobMessage> {
    await service.waitForStatus(job, () => true, 'start of the job');
    return job;
  }

  it('a key that is not in the bucket is named to the backend', async () => {
    const job = service.job(EPOCHS);
    job.images[4] = 's3://brushwork/pictures/lost.png';
    const { code, message } = await failedNotice(job);
    assert.equal(code, 'IMAGE_NOT_FOUND');
    assert.match(message, /pictures\/lost\.png/);
  });

  it('a message that can not become a job is told to the backend', async () => {
    const job = { ...service.job(EPOCHS), taskId: 'with spaces' };
    await service.publish(job);
    const { body } = await service.backend.waitFor(
      (request) => request.kind === 'failed' && request.body?.['style_id'] === job.styleId,
    );
    assert.equal(body?.['error_code'], 'INVALID_REQUEST');
    assert.match(String(body['error_message']), /task_id/);
    assert.equal(service.finalNotices(job).length, 1);
  });

  it('corrupt pictures are named to the backend, all of them', async () => {
    const job = service.job(EPOCHS);
    job.images[1] = await service.putObject('pictures-bad/text.png', Buffer.from('no picture'));
    job.images[2] = await service.putObject('pictures-bad/cut.jpg', Buffer.from([0xff, 0xd8, 0xff, 0xe0, 0, 16]));
    const { code, message } = await failedNotice(job);
    assert.equal(code, 'IMAGE_INVALID');
    assert.match(message, /text\.png.*cut\.jpg/);
  });

  it('a backend that refuses our token is told again until it accepts it, and the weights are safe meanwhile', async () => {
    service.backend.setBehaviour({ status: 401 });
    const job = service.job(EPOCHS);
    await service.publish(job);
    await started(job);
    const waiting = ({ phase, reason }: { phase: string; reason: string | null }) =>
      phase === 'notifying' && reason?.includes('WEBHOOK_UNAUTHORIZED') === true;
    await service.waitForStatus(job, waiting, 'the reason of the wait');
    assert.ok((await service.weightsOf(job))['lora_weights.safetensors']);
    service.backend.setBehaviour(null);
    assert.equal((await service.resultOf(job)).epochs, EPOCHS);
    assert.deepEqual(
      service.finalNotices(job).map(({ kind }) => kind),
      ['complete'],
    );
  });

  it('a backend that can not be reached hears of the result when it is back', async () => {
    service.backend.setBehaviour({ cut: 'before-accepting' });
    const job = service.job(EPOCHS);
    await service.publish(job);
    await started(job);
    await service.waitForStatus(job, ({ phase }) => phase === 'notifying', 'the result');
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    assert.equal((await service.statusOf(job)).phase, 'notifying');
    service.backend.setBehaviour(null);
    assert.equal((await service.resultOf(job)).epochs, EPOCHS);
    assert.equal(service.finalNotices(job).length, 1);
  });
});
