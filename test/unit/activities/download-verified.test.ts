import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Client } from '@temporalio/client';
import { createPicturesActivities, createPodActivities } from '../../../activities/index.ts';
import type { DownloadResult, InspectPicturesInput, InspectPicturesResult } from '../../../common/activity-types.ts';
import { PodRest } from '../../../activities/pod-rest.ts';
import { TestPod, noise, quietEnvironment } from './support/pod.ts';

const COUNT = 10;
const DIFFERS =
  /3\.png is not what it was, or its caption is not\. They could be when the job was accepted.*new task_id/;

const sha256 = (content: string | Buffer) => createHash('sha256').update(content).digest('hex');

describe('download of pictures that were looked at', () => {
  let pod: TestPod;
  let pictureHashes: string[] | undefined;
  const images = Array.from({ length: COUNT }, (_, i) => `s3://bucket/in/${i}.png`);
  const job = { images, tags: [], parameters: { epochs: 50, learningRate: null, batchSize: null } };

  beforeEach(async () => {
    pod = new TestPod();
    pod.deps.recipe.resolutionPx = 256;
    pod.deps.rest = new PodRest(60_000);
    for (let i = 0; i < COUNT; i++) pod.store.objects.set(`in/${i}.png`, await noise(i));
    pod.store.objects.set('in/3.txt', Buffer.from('a hill of its own'));
    const client = {
      activity: { heartbeat: () => Promise.resolve() },
      withDeadline: (_deadline: number, call: () => Promise<unknown>) => call(),
      withAbortSignal: (_signal: AbortSignal, call: () => Promise<unknown>) => call(),
    } as unknown as Client;
    const { inspectPictures } = createPicturesActivities({ ...pod.deps, uriScheme: 's3', scratch: pod.directory });
    const input: InspectPicturesInput = { styleId: 7, taskId: 'task', ...job };
    const looked: InspectPicturesResult = await quietEnvironment(client).run(inspectPictures, input);
    pictureHashes = looked.pictureHashes;
  });
  afterEach(() => pod.close());

  function run(hashes = pictureHashes): Promise<DownloadResult> {
    const input = { ...pod.ids, ...job, resumeFrom: null, ...(hashes && { pictureHashes: hashes }) };
    return pod.environment.run(createPodActivities(pod.deps).download, input);
  }

  const captionOnDisk = () => readFileSync(`${pod.jobDirectory}/images/3.txt`, 'utf8');

  it('finds one hash for each picture and its own caption in the order of the message', async () => {
    const hashOf = (picture: string, caption: string | null) =>
      sha256(JSON.stringify([sha256(pod.store.objects.get(picture) ?? ''), caption === null ? null : sha256(caption)]));
    assert.equal(pictureHashes?.length, COUNT);
    assert.equal(pictureHashes[3], hashOf('in/3.png', 'a hill of its own'));
    assert.equal(pictureHashes[9], hashOf('in/9.png', null));
    await run();
  });

  it('does not mind that pods are configured with another caption for pictures without one', async () => {
    pod.deps.instancePrompt = 'another';
    await run();
  });

  it('reads again what was damaged on its way', async () => {
    const { fingerprint } = await run();
    for (const key of ['in/3.png', 'in/3.txt']) {
      pod.store.flips.set(key, 1);
      assert.equal((await run()).fingerprint, fingerprint, key);
    }
    assert.equal(captionOnDisk(), 'a hill of its own');
  });

  it('is for another pod to try where it stays damaged, and this one rests', async () => {
    pod.store.flips.set('in/3.txt', 99);
    await assert.rejects(run(), { type: 'IMAGE_INVALID', nonRetryable: false, message: DIFFERS });
    assert.match(pod.deps.rest.reason ?? '', /^Resting for 60 s after IMAGE_INVALID/);
  });

  for (const [what, change] of [
    ['a picture was changed', async () => void pod.store.objects.set('in/3.png', await noise(99))],
    ['a caption was changed', () => void pod.store.objects.set('in/3.txt', Buffer.from('another hill'))],
    ['a caption was removed', () => void pod.store.objects.delete('in/3.txt')],
    ['a caption is denied', () => void pod.store.denied.add('in/3.txt')],
    ['a picture can not be decoded any more', () => void pod.store.objects.set('in/3.png', Buffer.from('no'))],
  ] as const) {
    it(`tells of it when ${what}, instead of training on something else`, async () => {
      await change();
      await assert.rejects(run(), { type: 'IMAGE_INVALID', nonRetryable: false, message: DIFFERS });
    });
  }

  it("takes a refusal of what was readable for this pod's, not for the job's end", async () => {
    pod.store.denied.add('in/3.png');
    await assert.rejects(run(), { type: 'ACCESS_DENIED', nonRetryable: false, message: /in\/3\.png is denied/ });
    pod.store.denied.clear();
    pod.store.objects.delete('in/3.png');
    await assert.rejects(run(), { type: 'IMAGE_NOT_FOUND', nonRetryable: false, message: /3\.png does not exist/ });
  });

  it('is as it was in a job whose pictures nobody has looked at', async () => {
    pod.store.objects.set('in/3.png', await noise(99));
    pod.store.denied.add('in/3.txt');
    pictureHashes = undefined;
    assert.equal((await run()).captionCount, 0);
    pod.store.objects.delete('in/3.png');
    await assert.rejects(run(), { type: 'IMAGE_NOT_FOUND', nonRetryable: true });
    assert.equal(pod.deps.rest.reason, null);
  });
});
