import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { ApplicationFailure } from '@temporalio/common';
import { createPodActivities } from '../../../activities/index.ts';
import { lostWithDisk } from '../../../activities/disk-fault.ts';
import { PodRest } from '../../../activities/pod-rest.ts';
import { InternalError, PodLostError } from '../../../common/errors.ts';
import { toStorageError } from '../../../worker/storage-errors.ts';
import { CONFIG, TestPod } from './support/pod.ts';

const fromDisk = Object.assign(new Error('ENOSPC: no space left on device, write'), {
  code: 'ENOSPC',
  syscall: 'write',
});

const FULL: Record<string, unknown> = {
  'the disk says so': fromDisk,
  'the store could not write what it read': toStorageError(fromDisk, 'reading s3://bucket/key'),
  'the trainer says so': new InternalError("can't write /scratch/x.part: No space left on device."),
  'a cause says so': new InternalError('Unexpected.', { cause: new Error('EDQUOT: disk quota exceeded, open') }),
};

const BROKEN: Record<string, unknown> = {
  'can not be read': Object.assign(new Error('EIO: i/o error, read'), { code: 'EIO', syscall: 'read' }),
  'takes nothing any more': new Error("EROFS: read-only file system, open '/scratch/x'"),
  'does not give the trainer what it wrote': new InternalError("can't read /scratch/x: Input/output error."),
};

describe('lostWithDisk', () => {
  for (const [what, error] of Object.entries(FULL)) {
    it(`gives the pod up where ${what}`, () => {
      const lost = lostWithDisk(error);
      assert.ok(lost instanceof PodLostError);
      assert.match(lost.message, /free space in its work directory/);
      assert.equal(lost.cause, error);
    });
  }

  for (const [what, error] of Object.entries(BROKEN)) {
    it(`gives a pod up whose disk ${what}`, () => {
      const lost = lostWithDisk(error);
      assert.ok(lost instanceof PodLostError);
      assert.match(lost.message, /^The disk of this pod fails: /);
    });
  }

  it('is applied to work on a pod, which then takes no job for a while', async () => {
    const pod = new TestPod();
    try {
      await pod.withPictures(1);
      const rest = new PodRest(60_000);
      const { upload } = createPodActivities({ ...pod.deps, rest });
      pod.trainer.onExport = () => Promise.reject(new InternalError("can't write /x: No space left on device."));
      const input = { ...pod.ids, jobDirectory: pod.jobDirectory, config: CONFIG, totalSteps: 0 };
      writeFileSync(`${pod.jobDirectory}/start`, JSON.stringify({ epochsRun: 0, microStepsRun: 0, weights: '' }));
      const run = pod.environment.run(upload, { ...input, checkpointFile: `${pod.jobDirectory}/start` });
      await assert.rejects(run, (error) => error instanceof ApplicationFailure && error.type === 'POD_LOST');
      assert.match(rest.reason ?? '', /^Resting for 60 s after POD_LOST: The disk of this pod is full/);
    } finally {
      pod.close();
    }
  });

  it('leaves every other error as it is', () => {
    const errors = [
      new InternalError('The store is out of space.'),
      new PodLostError('No heartbeat was accepted.'),
      null,
      'ENOSPC',
    ];
    for (const error of errors) assert.equal(lostWithDisk(error), error);
  });
});
