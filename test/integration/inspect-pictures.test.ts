import assert from 'node:assert/strict';
import type { DataReport } from '../../native/trainer/data-report.ts';
import { TestService } from './support/service.ts';
import type { JobMessage } from './support/service.ts';

const EPOCHS = 2;
const BUCKET = 'brushwork';

describe('pictures of a job, with no pod anywhere', function () {
  this.timeout(120_000);
  let service: TestService;

  before(async () => {
    service = await TestService.start();
    await service.startWorker(['bridge', 'control']);
  });
  after(() => service.stop());

  async function reportOf({ styleId, taskId }: JobMessage, extension: string): Promise<string> {
    const key = `checkpoints/style_${styleId}/${taskId}/data-report.${extension}`;
    const bytes = await service.store.getBytes({ bucket: BUCKET, key }, { maxBytes: 2 ** 20 });
    return bytes?.toString() ?? '';
  }

  it('that can not be used are all named to the backend within seconds', async () => {
    const job = service.job(EPOCHS);
    const good = job.images.length - 2;
    job.images[1] = await service.putObject('pictures-bad/text.png', Buffer.from('no picture'));
    job.images[4] = 's3://brushwork/pictures/lost.png';
    const startMs = Date.now();
    await service.publish(job);
    const { body } = await service.backend.waitFor(({ kind, accepted }) => kind === 'failed' && accepted);
    const tookMs = Date.now() - startMs;
    assert.equal(body?.['error_code'], 'IMAGE_NOT_FOUND');
    assert.match(String(body['error_message']), /text\.png is not a JPEG.*lost\.png does not exist/);
    assert.ok(tookMs < 30_000, `${tookMs} ms`);
    const { pictures } = JSON.parse(await reportOf(job, 'json')) as DataReport;
    assert.equal(pictures.filter(({ faults }) => faults.length === 0).length, good);
    assert.match(await reportOf(job, 'txt'), /2 that can't be used/);
  });

  it('that are fine are reported on while the job waits for a pod', async () => {
    const job = service.job(EPOCHS);
    await service.publish(job);
    const { dataReport, dataDoubts, lastError } = await service.waitForStatus(
      job,
      ({ phase }) => phase === 'waiting-for-pod',
      'the wait for a pod',
    );
    assert.equal(dataReport, `s3://${BUCKET}/checkpoints/style_${job.styleId}/${job.taskId}/data-report.json`);
    assert.equal(lastError, null);
    assert.ok(Array.isArray(dataDoubts));
    const { pictures } = JSON.parse(await reportOf(job, 'json')) as DataReport;
    assert.equal(pictures.length, job.images.length);
    await service.handleOf(job).cancel();
    await service.backend.waitFor(({ body }) => body?.['error_code'] === 'CANCELLED');
  });

  it('that came by URLs, which have expired when there is a pod at last, are trained', async () => {
    const job = service.job(EPOCHS);
    const keys = job.images.map((uri) => uri.slice(`s3://${BUCKET}/`.length));
    const copies = keys.map((key) => `to-expire/${key}`);
    for (const [i, key] of keys.entries()) await service.putObject(copies[i] ?? '', await service.objectOf(key));
    job.images = await Promise.all(copies.map((key) => service.presignedUrl(key)));
    await service.publish(job);
    await service.waitForStatus(job, ({ phase }) => phase === 'waiting-for-pod', 'the wait for a pod');
    await service.store.deleteAll(BUCKET, copies);
    await service.startWorker(['pod']);
    assert.equal((await service.resultOf(job)).epochs, EPOCHS);
    const kept = `checkpoints/style_${job.styleId}/${job.taskId}/pictures/`;
    assert.equal((await service.keys(kept)).length, job.images.length);
  });
});
