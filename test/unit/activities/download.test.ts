import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createPodActivities } from '../../../activities/index.ts';
import type { PodActivities } from '../../../activities/index.ts';
import { KeptPictures } from '../../../activities/kept-pictures.ts';
import { manifestKey, parseManifest } from '../../../common/checkpoint-manifest.ts';
import { checkpointFile } from '../../../activities/job-files.ts';
import type { CheckpointResult, DownloadInput, DownloadResult } from '../../../common/activity-types.ts';
import type { CheckpointRef } from '../../../common/types.ts';
import { heartbeatsOf } from './support/heartbeats.ts';
import { TestPod, noise, picture } from './support/pod.ts';

const JOB = { styleId: 7, taskId: 'task' };
const COUNT = 10;

describe('download', () => {
  let pod: TestPod;
  let activities: PodActivities;
  const uris = Array.from({ length: COUNT }, (_, i) => `s3://bucket/in/${i}.png`);

  beforeEach(async () => {
    pod = new TestPod();
    activities = createPodActivities(pod.deps);
    for (let i = 0; i < COUNT; i++) pod.store.objects.set(`in/${i}.png`, await picture(i));
  });
  afterEach(() => pod.close());

  function run(overrides: Partial<DownloadInput> = {}): Promise<DownloadResult> {
    return pod.environment.run(activities.download, {
      ...pod.ids,
      images: uris,
      tags: [],
      parameters: { epochs: 50, learningRate: null, batchSize: null },
      resumeFrom: null,
      ...overrides,
    });
  }

  const onDisk = (name: string) => readFileSync(`${pod.jobDirectory}/images/${name}`, 'utf8');

  it('brings pictures under their own names, and a caption for each', async () => {
    pod.store.objects.set('in/3.txt', Buffer.from('a caption of its own'));
    pod.store.objects.set('in/4.txt', Buffer.from('  \n'));
    const beats = heartbeatsOf(pod.environment);
    const result = await run();
    assert.deepEqual([result.imageCount, result.captionCount], [10, 1]);
    assert.equal(result.config.epochs, 50);
    const names = readdirSync(`${pod.jobDirectory}/images`);
    assert.equal(names.length, 2 * COUNT);
    assert.equal(onDisk('3.txt'), 'a caption of its own');
    assert.equal(onDisk('4.txt'), 'the instance prompt');
    assert.deepEqual(beats.at(-1), { pictures: 10, total: 10 });
  });

  it('counts each picture as often as an epoch repeats it', async () => {
    Object.assign(pod.deps.recipe, { repeats: 3 });
    const { imageCount, stepsPerEpoch } = await run();
    assert.deepEqual([imageCount, stepsPerEpoch], [30, 30]);
  });

  it('counts the steps of an epoch by the sizes in which pictures are trained', async () => {
    for (const i of [2, 5, 6]) pod.store.objects.set(`in/${i}.png`, await noise(i, 512, 300));
    pod.store.objects.set('in/7.png', await noise(7, 300, 512));
    const parameters = { epochs: null, learningRate: null, batchSize: 4 };
    assert.equal((await run({ parameters })).stepsPerEpoch, 3);
    Object.assign(pod.deps.recipe, { resizeMode: 'bucket' });
    // 6 squares, 3 wide ones and a high one.
    assert.equal((await run({ parameters })).stepsPerEpoch, 2 + 1 + 1);
  });

  it('does not count pictures that are held out, and refuses to hold out more than half before it fetches any', async () => {
    Object.assign(pod.deps.recipe, { repeats: 3, validationPictures: 2 });
    assert.equal((await run()).imageCount, 24);
    Object.assign(pod.deps.recipe, { validationPictures: 6 });
    await assert.rejects(run(), { type: 'TOO_FEW_IMAGES', nonRetryable: true, message: /6 of 10 pictures/ });
    assert.deepEqual(readdirSync(`${pod.jobDirectory}/images`), []);
  });

  it('refuses a resolution that the base model can not take before it fetches any picture', async () => {
    Object.assign(pod.deps.recipe, { resolutionPx: 72 });
    await assert.rejects(run({ images: ['s3://brushwork/none.png'] }), {
      type: 'INVALID_REQUEST',
      nonRetryable: true,
      message: /resolution is 72, but pictures for tiny need .* 16 px: set it to 64/,
    });
  });

  it('takes the tags as caption where there is none', async () => {
    await run({ tags: ['ink', 'loose lines'] });
    assert.equal(onDisk('0.txt'), 'ink, loose lines');
  });

  it('may be denied captions: they are optional', async () => {
    pod.store.denied.add('in/3.txt');
    assert.equal((await run()).captionCount, 0);
  });

  it('takes no web page for a caption', async () => {
    pod.store.objects.set('in/3.txt', Buffer.from('<!DOCTYPE html><title>Not found</title>'));
    assert.equal((await run()).captionCount, 0);
    assert.ok(!onDisk('3.txt').includes('html'));
  });

  it('takes pictures whose URLs have expired from the bucket, with the same fingerprint', async () => {
    const urls = uris.map((_, i) => `https://pictures.example/${i}.png?X-Amz-Signature=0f`);
    for (const [i, url] of urls.entries()) pod.store.web.set(url, await picture(i));
    const before = await run({ images: urls });
    await run({ images: urls });
    const named = urls.map((uri, i) => ({ uri, name: `${i}.png`, hasCaption: false }));
    const { signal } = new AbortController();
    await new KeptPictures(JOB, pod.deps).keep(named, `${pod.jobDirectory}/images`, signal);
    pod.store.web.clear();
    assert.equal((await run({ images: urls })).fingerprint, before.fingerprint);
    await assert.rejects(run({ images: urls.map((url) => `${url}0`) }), { type: 'ACCESS_DENIED', nonRetryable: true });
  });

  it('leaves nothing of an earlier attempt behind', async () => {
    mkdirSync(`${pod.jobDirectory}/images`, { recursive: true });
    writeFileSync(`${pod.jobDirectory}/images/stale.png`, 'x');
    await run();
    assert.ok(!readdirSync(`${pod.jobDirectory}/images`).includes('stale.png'));
  });

  describe('data report', () => {
    it('doubts nothing about good pictures', async () => {
      pod.deps.recipe.resolutionPx = 256;
      for (let i = 0; i < COUNT; i++) pod.store.objects.set(`in/${i}.png`, await noise(i));
      assert.deepEqual((await run()).doubts, []);
    });

    it('tells what is doubtful, about each picture and about all, by names only', async () => {
      for (let i = 0; i < COUNT; i++) pod.store.objects.set(`in/${i}.png`, await noise(i, 600, 600));
      pod.store.objects.set('in/1.png', await noise(0, 600, 600));
      pod.store.objects.set('in/2.png', await noise(2, 300, 600));
      pod.store.objects.set('in/3.png', await picture(3, 600));
      pod.store.objects.set('in/4.txt', Buffer.from('word '.repeat(80)));
      assert.deepEqual((await run()).doubts, [
        '1.png is the same file as 0.png: remove one of them',
        '2.png is enlarged 1.7 times and will look soft: use a bigger original',
        '2.png loses 50 % to the crop: cut it by hand, or use "bucket" or "stretch"',
        '3.png is of nearly one colour',
        '4.png has a caption of at least 80 tokens, of which the text encoder reads 75',
        '9 of 10 pictures have no caption of their own, unlike the others',
      ]);
    });

    it('keeps what goes into the history short', async () => {
      const doubts = (await run({ tags: ['word '.repeat(90)] })).doubts ?? [];
      // Small, of one colour and with a long caption: 30 doubts.
      assert.equal(doubts.length, 21);
      assert.equal(doubts.at(-1), "and 10 more, see the pod's log");
    });
  });

  describe('names every unusable picture at once', () => {
    it('those with a caption that is no text, before any trainer is asked', async () => {
      pod.store.objects.set('in/3.txt', Buffer.from([0x66, 0xfc, 0x72]));
      pod.store.objects.set('in/5.png', Buffer.from('not a picture'));
      pod.store.objects.set('in/5.txt', Buffer.from([0x66, 0xfc, 0x72]));
      await assert.rejects(run(), {
        type: 'IMAGE_INVALID',
        message:
          /3\.png has a caption that is not UTF-8 text; .*5\.png is not a JPEG, PNG or WebP, and has a caption that is not/,
      });
    });

    it('missing and broken ones', async () => {
      pod.store.objects.delete('in/2.png');
      pod.store.objects.set('in/5.png', Buffer.from('not a picture'));
      pod.store.objects.set('in/6.png', await picture(6, 200));
      pod.store.objects.set('in/7.png', (await picture(7)).subarray(0, 300));
      await assert.rejects(run(), (error: Error & { type?: string; nonRetryable?: boolean }) => {
        assert.equal(error.type, 'IMAGE_NOT_FOUND');
        assert.equal(error.nonRetryable, true);
        for (const name of ['2.png', '5.png', '6.png', '7.png']) assert.ok(error.message.includes(name), error.message);
        assert.match(error.message, /256 px/);
        return true;
      });
    });

    it('broken ones alone are invalid', async () => {
      pod.store.objects.set('in/5.png', Buffer.from('not a picture'));
      await assert.rejects(run(), { type: 'IMAGE_INVALID', nonRetryable: true });
    });

    it('too long ones are invalid', async () => {
      pod.store.objects.set('in/5.png', Buffer.alloc(11 * 2 ** 20));
      await assert.rejects(run(), { type: 'IMAGE_INVALID' });
    });

    it('denied ones say so', async () => {
      pod.store.denied.add('in/1.png');
      await assert.rejects(run(), { type: 'ACCESS_DENIED', nonRetryable: true });
    });

    it('places that we may not read are blocked', async () => {
      await assert.rejects(run({ images: [...uris.slice(1), 'file:///etc/passwd'] }), { type: 'BLOCKED_TARGET' });
    });
  });

  describe('fingerprint', () => {
    it('is the same for the same job', async () => {
      assert.equal((await run()).fingerprint, (await run()).fingerprint);
    });

    for (const [what, change] of [
      ['a picture', async () => void pod.store.objects.set('in/3.png', await picture(99))],
      ['a caption', () => Promise.resolve(void pod.store.objects.set('in/3.txt', Buffer.from('another')))],
      ['the recipe', () => Promise.resolve(void Object.assign(pod.deps.recipe, { rank: 8 }))],
      ['the resize mode', () => Promise.resolve(void Object.assign(pod.deps.recipe, { resizeMode: 'stretch' }))],
      ['repeats', () => Promise.resolve(void Object.assign(pod.deps.recipe, { repeats: 2 }))],
      ['a trigger word', () => Promise.resolve(void Object.assign(pod.deps.recipe, { triggerWord: 'inkwash' }))],
      [
        'the base model',
        () =>
          Promise.resolve(
            void (pod.deps.baseModel = () =>
              Promise.resolve({ directory: '', fingerprint: 'model-2', name: 'm', sideMultiplePx: 16 })),
          ),
      ],
    ] as const) {
      it(`differs with ${what}`, async () => {
        const before = (await run()).fingerprint;
        await change();
        assert.notEqual((await run()).fingerprint, before);
      });
    }
  });

  describe('checkpoint to resume from', () => {
    let resumeFrom: CheckpointRef;

    beforeEach(async () => {
      const { fingerprint, jobDirectory } = await run();
      const file = checkpointFile(jobDirectory, 10);
      mkdirSync(`${jobDirectory}/checkpoints`);
      writeFileSync(file, 'the state');
      const committed: CheckpointResult = await pod.environment.run(activities.checkpoint, {
        ...pod.ids,
        checkpointFile: file,
        epoch: 10,
        step: 100,
        fingerprint,
        epochLosses: Array.from({ length: 10 }, () => 1),
        replaceDamaged: false,
      });
      resumeFrom = committed.checkpoint;
      writeFileSync(file, 'stale');
    });

    function damageData(): void {
      const key = manifestKey(JOB, 10);
      const manifest = parseManifest(pod.store.objects.get(key) ?? Buffer.of(), key, JOB);
      pod.store.objects.set(manifest.objects[0]?.key ?? '', Buffer.from('THE state'));
    }

    it('lies on the disk, verified', async () => {
      const { checkpointFile: file } = await run({ resumeFrom });
      assert.equal(readFileSync(file ?? '', 'utf8'), 'the state');
    });

    it('is refused when its bytes are not what was written', async () => {
      damageData();
      await assert.rejects(run({ resumeFrom }), { type: 'CHECKSUM_MISMATCH', nonRetryable: false });
    });

    it('is refused when it belongs to other pictures', async () => {
      pod.store.objects.set('in/3.png', await picture(99));
      await assert.rejects(run({ resumeFrom }), {
        type: 'CHECKPOINT_INCOMPATIBLE',
        nonRetryable: true,
        message: /was made with other pictures, captions, or parameters\. /,
      });
    });

    it('is refused when this pod has another base model, saying so', async () => {
      const other = { directory: '', fingerprint: 'model-2', name: 'sd', sideMultiplePx: 16 };
      pod.deps.baseModel = () => Promise.resolve(other);
      await assert.rejects(run({ resumeFrom }), {
        type: 'CHECKPOINT_INCOMPATIBLE',
        message: /on a pod with another base model \(model-1\) than this pod's sd \(model-2\)\. .* BASE_MODEL/,
      });
    });

    it('may be of any base model where an earlier version has committed it', async () => {
      const key = manifestKey(JOB, 10);
      const { baseModel, ...manifest } = parseManifest(pod.store.objects.get(key) ?? Buffer.of(), key, JOB);
      assert.equal(baseModel, 'model-1');
      pod.store.objects.set(key, Buffer.from(JSON.stringify(manifest)));
      assert.ok((await run({ resumeFrom })).checkpointFile);
      pod.deps.baseModel = () =>
        Promise.resolve({ directory: '', fingerprint: 'model-2', name: 'sd', sideMultiplePx: 16 });
      await assert.rejects(run({ resumeFrom }), { message: /parameters or another base model\. / });
    });
  });
});
