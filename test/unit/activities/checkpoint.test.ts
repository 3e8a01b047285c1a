import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { ApplicationFailure } from '@temporalio/common';
import { createControlActivities, createPodActivities } from '../../../activities/index.ts';
import type { PodActivities } from '../../../activities/index.ts';
import { checkpointFile } from '../../../activities/job-files.ts';
import { manifestKey, parseManifest } from '../../../common/checkpoint-manifest.ts';
import { AccessDeniedError, PodLostError } from '../../../common/errors.ts';
import type { CheckpointInput, CheckpointResult, FindResumePointResult } from '../../../common/activity-types.ts';
import { TestPod, quietEnvironment } from './support/pod.ts';

const JOB = { styleId: 7, taskId: 'task' };

describe('checkpoint', () => {
  let pod: TestPod;
  let activities: PodActivities;

  beforeEach(() => {
    pod = new TestPod();
    mkdirSync(`${pod.jobDirectory}/checkpoints`, { recursive: true });
    activities = createPodActivities(pod.deps);
  });
  afterEach(() => pod.close());

  function commit(
    epoch: number,
    fingerprint = 'f',
    replaceDamaged = false,
    previewFile: string | null = null,
    more: Partial<CheckpointInput> = {},
  ): Promise<CheckpointResult> {
    const file = checkpointFile(pod.jobDirectory, epoch);
    writeFileSync(file, `state after ${epoch} epochs`);
    return pod.environment.run(activities.checkpoint, {
      ...pod.ids,
      checkpointFile: file,
      previewFile,
      epoch,
      step: epoch * 12,
      fingerprint,
      epochLosses: Array.from({ length: epoch }, () => 0.25),
      replaceDamaged,
      ...more,
    });
  }

  function find(excludedManifestKeys: string[] = []): Promise<FindResumePointResult> {
    const control = createControlActivities({ ...pod.deps, uriScheme: 's3', keepFinalCheckpoints: 1 });
    return quietEnvironment().run(control.findResumePoint, { ...JOB, excludedManifestKeys });
  }

  function manifestOf(epoch: number) {
    const key = manifestKey(JOB, epoch);
    return parseManifest(pod.store.objects.get(key) ?? Buffer.of(), key, JOB);
  }

  it('counts as a lost pod where its file is gone: a reset may ask for one that the job has deleted', async () => {
    const gone = { checkpointFile: `${pod.jobDirectory}/checkpoints/gone.safetensors` };
    await assert.rejects(commit(10, 'f', false, null, gone), { type: 'POD_LOST' });
  });

  it('is found again, with its losses', async () => {
    const { checkpoint } = await commit(10);
    assert.deepEqual(checkpoint, { manifestKey: manifestKey(JOB, 10), epoch: 10, step: 120, fingerprint: 'f' });
    const found = await find();
    assert.deepEqual(found.checkpoint, checkpoint);
    assert.equal(found.epochLosses.length, 10);
    const manifest = manifestOf(10);
    assert.equal(manifest.holdId, pod.holdId);
    assert.equal(pod.store.objects.get(manifest.objects[0]?.key ?? '')?.toString(), 'state after 10 epochs');
  });

  it('is found although an older manifest has the format of another version', async () => {
    await commit(10);
    const key = manifestKey(JOB, 10);
    pod.store.objects.set(key, Buffer.from(String(pod.store.objects.get(key)).replace('"schema":1', '"schema":0')));
    await assert.rejects(find(), { type: 'CHECKPOINT_INCOMPATIBLE' });
    await commit(20);
    const found = await find();
    assert.deepEqual([found.checkpoint?.epoch, found.checkpoints.length], [20, 1]);
  });

  it('is read once more where its manifest came damaged: the way may have spoilt it', async () => {
    await commit(10);
    const getBytes = pod.store.getBytes.bind(pod.store);
    let spoilt = 0;
    pod.store.getBytes = async (location, options) => {
      const bytes = await getBytes(location, options);
      // A digit of a loss: what comes is whole JSON.
      return spoilt++ === 0 ? Buffer.from(String(bytes).replace('0.25', '0.26')) : bytes;
    };
    assert.equal((await find()).epochLosses[0], 0.25);
    pod.store.getBytes = async (location, options) =>
      Buffer.from(String(await getBytes(location, options)).replace('0.25', '0.26'));
    assert.equal((await find()).checkpoint, null);
  });

  describe('with a preview', () => {
    let sheet: string;

    beforeEach(() => {
      sheet = `${pod.jobDirectory}/sheet.png`;
      writeFileSync(sheet, 'a sheet');
    });

    it('names it in the manifest and where checkpoints are listed', async () => {
      const { checkpoint } = await commit(10, 'f', false, sheet);
      const key = manifestOf(10).preview?.key ?? '';
      assert.match(key, /^checkpoints\/style_7\/task\/previews\/epoch-000010-[^/]+\.png$/);
      assert.equal(pod.store.objects.get(key)?.toString(), 'a sheet');
      assert.equal(checkpoint.previewKey, key);
      assert.equal((await find()).checkpoint?.previewKey, key);
    });

    it('is committed without it when the store does not take it', async () => {
      pod.store.onWrite = (_verb, key) => {
        if (key.includes('/previews/')) throw new AccessDeniedError('No.');
      };
      const { checkpoint } = await commit(10, 'f', false, sheet);
      assert.equal(checkpoint.previewKey, undefined);
      assert.equal(manifestOf(10).preview, undefined);
    });

    it('is whole when somebody has deleted the sheet', async () => {
      const { checkpoint } = await commit(10, 'f', false, sheet);
      pod.store.objects.delete(checkpoint.previewKey ?? '');
      assert.equal((await find()).checkpoint?.epoch, 10);
    });

    it('keeps the sheets of older checkpoints', async () => {
      for (const epoch of [10, 20, 30]) await commit(epoch, 'f', false, sheet);
      assert.equal(pod.store.keys('checkpoints/style_7/task/previews/').length, 3);
      assert.equal(pod.store.keys('checkpoints/style_7/task/data/').length, 2);
    });

    it('writes none once the hold is lost', async () => {
      pod.store.onWrite = (_verb, key) => {
        if (key.includes('/data/')) pod.fence.close(pod.holdId, new PodLostError('gone'));
      };
      await assert.rejects(commit(10, 'f', false, sheet), { type: 'POD_LOST' });
      assert.deepEqual(pod.store.keys('checkpoints/style_7/task/previews/'), []);
    });
  });

  it('keeps what was measured on held-out pictures, and says nothing of it where nothing was', async () => {
    const validationLosses = [
      { epoch: 0, loss: 0.5 },
      { epoch: 5, loss: 0.25 },
    ];
    await commit(10);
    assert.ok(!('validationLosses' in manifestOf(10)));
    assert.ok(!('validationLosses' in (await find())));
    await commit(20, 'f', false, null, { validationLosses });
    assert.deepEqual((await find()).validationLosses, validationLosses);
  });

  it('writes the manifest after the data', async () => {
    const writes: string[] = [];
    pod.store.onWrite = (verb, key) => void writes.push(`${verb} ${key.includes('/data/') ? 'data' : 'manifest'}`);
    await commit(10);
    assert.deepEqual(writes, ['put data', 'putIfAbsent manifest']);
  });

  it('that was committed already is a success and changes nothing', async () => {
    await commit(10);
    const before = pod.store.objects.get(manifestKey(JOB, 10));
    await commit(10);
    assert.equal(pod.store.objects.get(manifestKey(JOB, 10)), before);
  });

  it('refuses an epoch that another run has committed', async () => {
    await commit(10, 'other');
    await assert.rejects(commit(10), { type: 'CHECKPOINT_INCOMPATIBLE', nonRetryable: true });
    assert.equal(manifestOf(10).fingerprint, 'other');
  });

  it('writes over a manifest that nobody can read', async () => {
    pod.store.objects.set(manifestKey(JOB, 10), Buffer.from('{"schema":'));
    await commit(10);
    assert.equal(manifestOf(10).epoch, 10);
  });

  it('writes over a manifest whose data is gone', async () => {
    await commit(10);
    const gone = manifestOf(10).objects[0]?.key ?? '';
    pod.store.objects.delete(gone);
    await commit(10);
    assert.ok(pod.store.objects.has(manifestOf(10).objects[0]?.key ?? ''));
  });

  it('writes over what is longer than any manifest', async () => {
    pod.store.objects.set(manifestKey(JOB, 10), Buffer.alloc(2 ** 20));
    await commit(10);
    assert.equal(manifestOf(10).epoch, 10);
  });

  it('is committed even where nothing may be deleted', async () => {
    pod.store.deleteAll = () => Promise.reject(new AccessDeniedError('No.'));
    for (const epoch of [10, 20, 30]) await commit(epoch);
    assert.equal(manifestOf(30).epoch, 30);
  });

  it('writes over a manifest whose data turned out damaged', async () => {
    await commit(10);
    const damaged = manifestOf(10).objects[0]?.key;
    await commit(10, 'f', true);
    assert.notEqual(manifestOf(10).objects[0]?.key, damaged);
  });

  it('keeps the two newest and the newest file on the disk', async () => {
    for (const epoch of [10, 20, 30]) await commit(epoch);
    assert.deepEqual(pod.store.keys('checkpoints/style_7/task/manifests/'), [
      manifestKey(JOB, 20),
      manifestKey(JOB, 30),
    ]);
    assert.equal(pod.store.keys('checkpoints/style_7/task/data/').length, 2);
    assert.deepEqual(readdirSync(`${pod.jobDirectory}/checkpoints`), ['epoch-000030.safetensors']);
  });

  it('leaves checkpoints of other jobs alone', async () => {
    pod.store.objects.set('checkpoints/style_7/task-2/manifests/epoch-000001.json', Buffer.from('x'));
    for (const epoch of [10, 20, 30]) await commit(epoch);
    assert.equal(pod.store.keys('checkpoints/style_7/task-2/').length, 1);
  });

  it('writes no manifest once the hold is lost', async () => {
    pod.store.onWrite = (_verb, key) => {
      if (key.includes('/data/')) pod.fence.close(pod.holdId, new PodLostError('gone'));
    };
    await assert.rejects(commit(10), (error) => error instanceof ApplicationFailure && error.type === 'POD_LOST');
    assert.equal(pod.store.objects.has(manifestKey(JOB, 10)), false);
  });

  it('writes nothing from a pod that was cut off, though it does not know it yet', async () => {
    pod.fence.check = () => {
      throw new PodLostError('Frozen until now.');
    };
    await assert.rejects(commit(10), { type: 'POD_LOST' });
    assert.deepEqual(pod.store.keys(), []);
  });

  describe('findResumePoint', () => {
    it('finds nothing for a new job', async () => {
      assert.deepEqual(await find(), { checkpoint: null, checkpoints: [], epochLosses: [] });
    });

    it('takes the newest and lists the older', async () => {
      await commit(10);
      await commit(20);
      const found = await find();
      assert.equal(found.checkpoint?.epoch, 20);
      assert.deepEqual(
        found.checkpoints.map(({ epoch }) => epoch),
        [20, 10],
      );
    });

    it('leaves out what it is told to', async () => {
      await commit(10);
      await commit(20);
      assert.equal((await find([manifestKey(JOB, 20)])).checkpoint?.epoch, 10);
    });

    for (const [what, damage] of [
      ['is no JSON', () => void pod.store.objects.set(manifestKey(JOB, 20), Buffer.from('{'))],
      ['belongs to another job', () => void pod.store.objects.set(manifestKey(JOB, 20), manifestOfOtherJob())],
      ['is longer than any manifest', () => void pod.store.objects.set(manifestKey(JOB, 20), Buffer.alloc(300_000))],
      ['names data that is gone', () => void pod.store.objects.delete(manifestOf(20).objects[0]?.key ?? '')],
      [
        'names data that was cut short',
        () => void pod.store.objects.set(manifestOf(20).objects[0]?.key ?? '', Buffer.from('s')),
      ],
    ] as const) {
      it(`goes back to an older checkpoint when the newest manifest ${what}`, async () => {
        await commit(10);
        await commit(20);
        damage();
        assert.equal((await find()).checkpoint?.epoch, 10);
      });
    }

    function manifestOfOtherJob(): Buffer {
      return Buffer.from(JSON.stringify({ ...manifestOf(20), taskId: 'another' }));
    }
  });
});
