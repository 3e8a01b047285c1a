import assert from 'node:assert/strict';
import { standAt } from '../../../activities/trainer-job.ts';
import {
  type BrushworkError,
  CheckpointIncompatibleError,
  GpuFaultError,
  ImageInvalidError,
  PodLostError,
  TooFewImagesError,
} from '../../../common/errors.ts';
import { CONFIG, TestPod } from './support/pod.ts';

const FILE = '/scratch/hold/checkpoints/epoch-000010.safetensors';

const LOST: Record<string, BrushworkError> = {
  'a picture': new ImageInvalidError("1 of 10 pictures can't be used: a.png can't be read (EIO: i/o error, read)."),
  'any picture': new TooFewImagesError('/scratch/hold/images holds no picture.'),
  'the checkpoint': new CheckpointIncompatibleError(`${FILE}: can't be opened: Input/output error`),
};

const KEPT: Record<string, BrushworkError> = {
  'a checkpoint of another version': new CheckpointIncompatibleError(
    `The checkpoint ${FILE} does not fit this job: its format_version is 2, the job's is 1.`,
  ),
  'a GPU that fails': new GpuFaultError('The trainer process ended by SIGSEGV.'),
};

describe('standAt', () => {
  let pod: TestPod;

  beforeEach(() => {
    pod = new TestPod();
  });
  afterEach(() => pod.close());

  function stand(error: BrushworkError): Promise<void> {
    pod.trainer.onPrepare = () => Promise.reject(error);
    const run = { ...pod.ids, jobDirectory: pod.jobDirectory, config: CONFIG, steps: 30, checkpointFile: FILE };
    return standAt(run, new AbortController().signal, pod.deps);
  }

  for (const [what, error] of Object.entries(LOST)) {
    it(`gives up the pod, not the job, where its disk does not give back ${what}`, async () => {
      await assert.rejects(stand(error), (lost) => {
        assert.ok(lost instanceof PodLostError);
        assert.ok(lost.message.endsWith(error.message), lost.message);
        return true;
      });
    });
  }

  for (const [what, error] of Object.entries(KEPT)) {
    it(`leaves ${what} as it is`, () => assert.rejects(stand(error), error));
  }
});
