import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { ActivityNotFoundError } from '@temporalio/client';
import type { Client } from '@temporalio/client';
import sharp from 'sharp';
import { createPicturesActivities } from '../../../activities/index.ts';
import type { InspectPicturesInput, InspectPicturesResult } from '../../../common/activity-types.ts';
import type { DataReport } from '../../../native/trainer/data-report.ts';
import { heartbeatsOf } from './support/heartbeats.ts';
import { TestPod, noise, quietEnvironment } from './support/pod.ts';

const COUNT = 10;
const PREFIX = 'checkpoints/style_7/task/data-report';

describe('inspectPictures', () => {
  let pod: TestPod;
  let heartbeat: () => Promise<void>;
  const uris = Array.from({ length: COUNT }, (_, i) => `s3://bucket/in/${i}.png`);

  beforeEach(async () => {
    pod = new TestPod();
    pod.deps.recipe.resolutionPx = 256;
    heartbeat = () => Promise.resolve();
    for (let i = 0; i < COUNT; i++) pod.store.objects.set(`in/${i}.png`, await noise(i));
  });
  afterEach(() => pod.close());

  const client = {
    activity: { heartbeat: () => heartbeat() },
    withDeadline: (_deadline: number, call: () => Promise<unknown>) => call(),
    withAbortSignal: (_signal: AbortSignal, call: () => Promise<unknown>) => call(),
  } as unknown as Client;

  function run(
    overrides: Partial<InspectPicturesInput> = {},
    environment = quietEnvironment(client),
  ): Promise<InspectPicturesResult> {
    const { inspectPictures } = createPicturesActivities({ ...pod.deps, uriScheme: 's3', scratch: pod.directory });
    const input: InspectPicturesInput = {
      ...{ styleId: 7, taskId: 'task', images: uris, tags: [] },
      parameters: { epochs: 50, learningRate: null, batchSize: null },
      ...overrides,
    };
    return environment.run(inspectPictures, input);
  }

  const written = (extension: string) => pod.store.objects.get(`${PREFIX}.${extension}`)?.toString() ?? '';
  const report = () => JSON.parse(written('json')) as DataReport;

  it('puts a report on every picture into the bucket, as JSON and as a table, and leaves no picture behind', async () => {
    pod.store.objects.set('in/3.txt', Buffer.from('a hill of its own'));
    pod.store.objects.set('in/1.png', pod.store.objects.get('in/0.png') ?? Buffer.of());
    const environment = quietEnvironment(client);
    const beats = heartbeatsOf(environment);
    const { doubts, reportUri } = await run({}, environment);
    assert.equal(reportUri, `s3://bucket/${PREFIX}.json`);
    const copy = 'is the same file as 0.png: remove one of them';
    assert.deepEqual(doubts, [`1.png ${copy}`, '9 of 10 pictures have no caption of their own, unlike the others']);
    const { pictures } = report();
    assert.deepEqual(
      pictures.map(({ name }) => name),
      uris.map((_, i) => `${i}.png`),
    );
    const { format, widthPx, heightPx, caption, captionFrom, done } = pictures[3] ?? assert.fail();
    assert.deepEqual([format, widthPx, heightPx, caption, captionFrom], ['png', 256, 256, 'a hill of its own', 'file']);
    assert.deepEqual(done, []);
    assert.deepEqual(pictures[1]?.doubts, [copy]);
    assert.match(written('txt'), /^3\.png +256×256.*a hill of its own/m);
    assert.match(written('txt'), /10 pictures: 9 good, 1 doubtful/);
    assert.deepEqual(beats.at(-1), { pictures: 10, total: 10 });
    assert.deepEqual(readdirSync(pod.directory), []);
  });

  it('tells what is known of pictures that are too big to be fetched', async () => {
    const rest = Buffer.alloc(12 * 2 ** 20);
    const noisy = await noise(1, 400, 300);
    const jpeg = await sharp(await noise(2, 1200, 800))
      .jpeg({ quality: 100 })
      .toBuffer();
    pod.store.objects.set('in/1.png', Buffer.concat([noisy, rest]).subarray(0, rest.length));
    pod.store.web.set('https://pictures.example/2.jpg', Buffer.concat([jpeg, rest]));
    pod.store.objects.set('in/3.png', rest);
    const images = [...uris.slice(0, 2), 'https://pictures.example/2.jpg', ...uris.slice(3)];
    await assert.rejects(run({ images }), {
      type: 'IMAGE_INVALID',
      message:
        "3 of 10 images can't be used: s3://bucket/in/1.png has 12.0 MiB, more than the 10.0 MiB allowed; " +
        'https://pictures.example/2.jpg has more than the 10.0 MiB allowed; ' +
        's3://bucket/in/3.png has 12.0 MiB, more than the 10.0 MiB allowed. Replace or remove them.',
    });
    const facts = report().pictures.map(({ sizeBytes, format, widthPx, heightPx, faults }) => {
      return [sizeBytes, format, widthPx, heightPx, faults];
    });
    assert.deepEqual(facts.slice(1, 4), [
      [rest.length, 'png', 400, 300, ['has 12.0 MiB, more than the 10.0 MiB allowed']],
      [0, 'jpeg', 1200, 800, ['has more than the 10.0 MiB allowed']],
      [rest.length, null, null, null, ['has 12.0 MiB, more than the 10.0 MiB allowed']],
    ]);
    assert.match(written('txt'), /^1\.png +400×300, 12 MiB +png, RGB .*\n {2}! has 12\.0 MiB/m);
    assert.match(written('txt'), /^2\.jpg +1200×800 +jpeg, RGB .*\n {2}! has more than/m);
    assert.match(written('txt'), /^3\.png +12 MiB +\(/m);
    assert.deepEqual(readdirSync(pod.directory), []);
  });

  describe('pictures that come by URL', () => {
    const KEPT = 'checkpoints/style_7/task/pictures/';
    const plain = 'https://pictures.example/8.png';
    const presigned = 'https://pictures.example/9.png?X-Amz-Signature=0f';
    const images = [...uris.slice(0, 8), plain, presigned];

    beforeEach(async () => {
      pod.store.web.set(plain, await noise(8));
      pod.store.web.set('https://pictures.example/8.txt', Buffer.from('a hill of its own'));
      pod.store.web.set(presigned, await noise(9));
    });

    it('are kept for later pods, each after its caption; the others are not', async () => {
      const written: string[] = [];
      pod.store.onWrite = (_verb, key) => void (key.startsWith(KEPT) && written.push(key));
      await run({ images });
      assert.equal(written.length, 3);
      const caption = written.find((key) => key.endsWith('.txt')) ?? assert.fail();
      assert.ok(written.indexOf(caption) < written.indexOf(caption.replace('.txt', '')), written.join());
      assert.deepEqual(pod.store.objects.get(caption), Buffer.from('a hill of its own'));
    });

    it('are found there when the job is redone after the URLs have expired, and are the same', async () => {
      await run({ images });
      const before = [report(), pod.store.keys(KEPT)];
      pod.store.web.clear();
      await run({ images });
      assert.deepEqual([report(), pod.store.keys(KEPT)], before);
    });

    it('are not kept for a job that is over', async () => {
      heartbeat = () => Promise.reject(new ActivityNotFoundError('unknown'));
      await run({ images });
      assert.deepEqual(pod.store.keys(KEPT), []);
    });

    it('are asked for again when our bucket refuses its keys just now', async () => {
      await run({ images });
      for (const key of pod.store.keys(KEPT)) pod.store.denied.add(key);
      await assert.rejects(run({ images }), { type: 'ACCESS_DENIED', nonRetryable: false });
    });
  });

  it('names every unusable picture at once, in the error and in the report', async () => {
    pod.store.objects.delete('in/2.png');
    pod.store.objects.set('in/5.png', Buffer.from('not a picture'));
    pod.store.objects.set('in/6.png', await noise(6, 200, 200));
    await assert.rejects(run({ images: [...uris.slice(1), 'file:///etc/passwd'] }), (error: Error) => {
      assert.deepEqual([Reflect.get(error, 'type'), Reflect.get(error, 'nonRetryable')], ['IMAGE_NOT_FOUND', true]);
      for (const name of ['2.png', '5.png', '6.png', 'passwd']) assert.ok(error.message.includes(name), error.message);
      return true;
    });
    const unusable = report().pictures.filter(({ faults }) => faults.length > 0);
    assert.deepEqual(
      unusable.map(({ name }) => name),
      ['2.png', '5.png', '6.png', 'file:///etc/passwd'],
    );
    assert.match(written('txt'), /! does not exist/);
    assert.deepEqual(readdirSync(pod.directory), []);
  });

  for (const [what, type, change] of [
    ['broken', 'IMAGE_INVALID', () => void pod.store.objects.set('in/1.png', Buffer.from('no'))],
    ['missing', 'IMAGE_NOT_FOUND', () => void pod.store.objects.delete('in/1.png')],
    ['denied', 'ACCESS_DENIED', () => void pod.store.denied.add('in/1.png')],
  ] as const) {
    it(`tells of ${what} ones by ${type}, for good`, async () => {
      change();
      await assert.rejects(run(), { type, nonRetryable: true });
    });
  }

  it('a store that is unavailable for some hides no fault of the others', async () => {
    pod.store.unavailable.add('in/0.png');
    pod.store.objects.set('in/9.png', Buffer.from('not a picture'));
    await assert.rejects(run(), { type: 'IMAGE_INVALID', message: /9\.png is not .* Others could not be fetched/ });
  });

  it('a store that is unavailable is asked again later, not for each of the pictures now', async () => {
    const many = Array.from({ length: 40 }, (_, i) => `s3://bucket/in/${i}.png`);
    for (let i = 0; i < many.length; i++) pod.store.unavailable.add(`in/${i}.png`);
    await assert.rejects(run({ images: many }), { type: 'STORAGE_UNAVAILABLE', nonRetryable: false });
    assert.ok(pod.store.reads.length < 20, `${pod.store.reads.length} reads`);
    assert.deepEqual(pod.store.keys('checkpoints/'), []);
  });

  it('a report that can not be written holds no job up, and hides no fault', async () => {
    pod.store.onWrite = () => Promise.reject(new Error('full'));
    const { doubts, reportUri } = await run();
    assert.deepEqual([doubts, reportUri], [[], null]);
    pod.store.objects.set('in/5.png', Buffer.from('not a picture'));
    await assert.rejects(run(), { type: 'IMAGE_INVALID' });
  });

  it('writes nothing for a job that was reset or terminated meanwhile', async () => {
    heartbeat = () => Promise.reject(new ActivityNotFoundError('gone'));
    await run();
    assert.deepEqual(pod.store.keys('checkpoints/'), []);
  });

  it('stops when it is cancelled, and leaves nothing behind', async () => {
    const environment = quietEnvironment(client);
    pod.store.onWrite = () => environment.cancel();
    await assert.rejects(run({}, environment), { name: 'CancelledFailure' });
    assert.deepEqual(readdirSync(pod.directory), []);
  });
});
