import assert from 'node:assert/strict';
import sharp from 'sharp';
import { TestService } from './support/service.ts';

const EPOCHS = 12;

describe('a job from the message to the weights', function () {
  this.timeout(180_000);
  let service: TestService;

  before(async () => {
    // Sheets at each checkpoint: the weights must be those of a run by hand, which draws none.
    service = await TestService.start({ overrides: { previews: { enabled: true, steps: 2, maxShare: 1 } } });
    await Promise.all([service.startWorker(['bridge', 'control']), service.startWorker(['pod'])]);
  });
  after(() => service.stop());

  it('makes the same weights as brushwork train, byte for byte, and tells the backend once', async () => {
    const job = service.job(EPOCHS);
    await service.publish(job);
    await service.backend.waitFor(({ kind, accepted }) => kind === 'complete' && accepted, 120_000);
    const result = await service.resultOf(job);
    const modelUri = `s3://brushwork/models/style_${job.styleId}/lora_weights.safetensors`;
    assert.equal(result.modelUri, modelUri);
    assert.deepEqual([result.epochs, result.podLosses], [EPOCHS, 0]);

    const [notice, ...more] = service.finalNotices(job);
    assert.deepEqual(more, []);
    assert.equal(notice?.kind, 'complete');
    assert.deepEqual(notice?.body, {
      style_id: job.styleId,
      model_path: modelUri,
      model_url: modelUri,
      training_metric: { loss: result.loss, epochs: EPOCHS },
      metadata: { training_epochs: EPOCHS, lora_rank: 4, lora_alpha: 8 },
    });

    const published = await service.weightsOf(job);
    for (const [name, bytes] of Object.entries(await service.trainByHand(EPOCHS))) {
      assert.ok(published[name]?.equals(bytes), `${name} differs`);
    }
    assert.ok(published['peft/adapter_config.json']);
  });

  it('trains the next style on the same pod, undisturbed by the job before', async () => {
    const job = service.job(EPOCHS);
    await service.publish(job);
    await service.backend.waitFor(
      ({ kind, body }) => kind === 'complete' && body?.['style_id'] === job.styleId,
      60_000,
    );
    await service.resultOf(job);
    const { events } = await service.handleOf(job).fetchHistory();
    const failed = (events ?? []).filter(
      (event) => event.activityTaskFailedEventAttributes ?? event.activityTaskTimedOutEventAttributes,
    );
    assert.deepEqual(failed, []);
    const [first, second] = [await service.weightsOf({ ...job, styleId: 1 }), await service.weightsOf(job)];
    assert.deepEqual(Object.keys(second), Object.keys(first));
    for (const [name, bytes] of Object.entries(second)) assert.ok(first[name]?.equals(bytes), `${name} differs`);
  });

  it('leaves the final checkpoint, the data report and nothing else behind', async () => {
    const all = [...(await service.keys('checkpoints/style_1/')), ...(await service.keys('staging/'))];
    const keys = all.filter((key) => !key.includes('/previews/'));
    const [reports, checkpoints] = [true, false].map((wanted) =>
      keys.filter((key) => /\/data-report\.(json|txt)$/.test(key) === wanted),
    );
    assert.deepEqual([reports?.length, checkpoints?.length], [2, 2], keys.join());
    assert.ok(checkpoints?.every((key) => key.includes(`epoch-0000${EPOCHS}`)));
  });

  it('leaves a contact sheet of each checkpoint, which show that the style has moved on', async () => {
    const [first, last, ...more] = await service.keys('checkpoints/style_1/', '/previews/');
    assert.ok(first !== undefined && last !== undefined);
    assert.deepEqual(more, []);
    assert.match(first, /\/epoch-000010-[^/]+\.png$/);
    assert.match(last, new RegExp(`/epoch-0000${EPOCHS}-[^/]+\\.png$`));
    const [before, after] = await Promise.all([first, last].map((key) => service.objectOf(key)));
    for (const sheet of [before, after]) {
      const { width, height, format } = await sharp(sheet).metadata();
      assert.deepEqual([width, height, format], [152, 194, 'png']);
    }
    // Two rows of 64 px below a line of 14 px each, and gaps of 8 px: the pictures of a column, without what is written above.
    const pictures = async (sheet: Buffer | undefined, left: number) => {
      const rows = [36, 122].map((top) => sharp(sheet).extract({ left, top, width: 64, height: 64 }).raw().toBuffer());
      return Buffer.concat(await Promise.all(rows));
    };
    const [base, style] = [8, 80];
    assert.ok((await pictures(before, base)).equals(await pictures(after, base)), 'the base model stays');
    assert.ok(!(await pictures(before, style)).equals(await pictures(after, style)), 'the style does not');
    assert.ok(!(await pictures(after, base)).equals(await pictures(after, style)));
  });

  it('told the backend of its progress', () => {
    const progress = service.backend.requests.filter(
      ({ kind, body }) => kind === 'progress' && body?.['style_id'] === 1,
    );
    const bodies = progress.map(({ body }) => body);
    assert.ok(bodies.length >= 3);
    const last = bodies.at(-1)?.['progress'] as { current_epoch: number; total_epochs: number };
    assert.deepEqual([last.current_epoch, last.total_epochs], [EPOCHS, EPOCHS]);
  });

  it('names style, task and pod in the log lines of its activities', () => {
    const text = service.tails();
    assert.match(text, /"style":1,"task":"[0-9a-f-]{36}","pod":/);
  });
});
