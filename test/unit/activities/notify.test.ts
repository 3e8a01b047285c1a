import assert from 'node:assert/strict';
import { ActivityCancelledError, ActivityNotFoundError, WorkflowNotFoundError } from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { createControlActivities } from '../../../activities/index.ts';
import type { ControlActivities } from '../../../activities/index.ts';
import { TestPod, quietEnvironment, temporalWith } from './support/pod.ts';

describe('notify', () => {
  let pod: TestPod;
  let control: ControlActivities;
  const job = { styleId: 7, taskId: 'task', webhookOrigin: 'https://backend.example' };

  beforeEach(() => {
    pod = new TestPod();
    control = createControlActivities({ ...pod.deps, uriScheme: 's3', keepFinalCheckpoints: 1 });
  });
  afterEach(() => pod.close());

  let askTemporal: () => Promise<void> = () => Promise.resolve();
  let newestTraining: () => Promise<object> = () => Promise.reject(noTraining);
  const noTraining = new WorkflowNotFoundError('none', 'train-style-7', undefined);

  const run = (input: Parameters<ControlActivities['notify']>[0]) =>
    quietEnvironment(
      temporalWith(
        () => askTemporal(),
        (workflowId) => {
          assert.equal(workflowId, 'train-style-7');
          return newestTraining();
        },
      ),
    ).run(control.notify, input);

  beforeEach(() => {
    askTemporal = () => Promise.resolve();
    newestTraining = () => Promise.reject(noTraining);
  });

  const failed = { kind: 'failed', ...job, webhookId: 'id', errorCode: 'INTERNAL', errorMessage: 'Why.' } as const;
  const isType = (type: string) => (error: unknown) => error instanceof ApplicationFailure && error.type === type;

  it('keeps a final notice to itself when its job was reset or terminated meanwhile', async () => {
    askTemporal = () => Promise.reject(new ActivityNotFoundError('gone'));
    await assert.rejects(run(failed), isType('CANCELLED'));
    assert.deepEqual(pod.backend.notices, []);
  });

  it('does not send a final notice whose end it could not report', async () => {
    askTemporal = () => Promise.reject(new Error('unreachable'));
    await assert.rejects(run(failed), isType('WEBHOOK_UNAVAILABLE'));
    assert.deepEqual(pod.backend.notices, []);
  });

  describe('about a refused message', () => {
    const REFUSED_AT_MS = 10_000;
    const refused = { ...failed, unlessTrainedSinceMs: REFUSED_AT_MS };
    const training = (status: string, closedAtMs?: number) => () =>
      Promise.resolve({
        memo: { taskId: 'corrected' },
        status: { name: status },
        ...(closedAtMs !== undefined && { closeTime: new Date(closedAtMs) }),
      });

    it('is sent where the style was not trained since', async () => {
      await run(refused);
      newestTraining = training('COMPLETED', REFUSED_AT_MS - 1);
      await run(refused);
      assert.equal(pod.backend.notices.length, 2);
    });

    for (const [state, newest] of [
      ['runs', training('RUNNING')],
      ['has ended since', training('FAILED', REFUSED_AT_MS)],
    ] as const) {
      it(`is dropped, with the reason, when a training ${state}: the backend would take it for that one's end`, async () => {
        newestTraining = newest;
        await assert.rejects(run(refused), (error: unknown) => {
          assert.ok(isType('CANCELLED')(error) && error instanceof ApplicationFailure);
          assert.match(error.message, /Style 7 .*in training since.*task corrected/);
          return true;
        });
        assert.deepEqual(pod.backend.notices, []);
      });
    }

    it('waits where Temporal does not say whether the style was trained', async () => {
      newestTraining = () => Promise.reject(new Error('unreachable'));
      await assert.rejects(run(refused), isType('WEBHOOK_UNAVAILABLE'));
      assert.deepEqual(pod.backend.notices, []);
    });
  });

  it('sends a final notice also after a cancel of the job', async () => {
    askTemporal = () => Promise.reject(new ActivityCancelledError('cancel requested'));
    await run(failed);
    assert.equal(pod.backend.notices.length, 1);
  });

  it('tells of no progress of a job that is over', async () => {
    askTemporal = () => Promise.reject(new ActivityNotFoundError('gone'));
    const progress = { kind: 'progress', ...job, currentEpoch: 1, totalEpochs: 3, estimatedSeconds: 90 } as const;
    await assert.rejects(run(progress), isType('CANCELLED'));
    assert.deepEqual(pod.backend.notices, []);
  });

  it('tells of no progress that its job has called off: the final notice is on its way', async () => {
    askTemporal = () => Promise.reject(new ActivityCancelledError('cancel requested'));
    const progress = { kind: 'progress', ...job, currentEpoch: 1, totalEpochs: 3, estimatedSeconds: 90 } as const;
    await assert.rejects(run(progress), isType('CANCELLED'));
    assert.deepEqual(pod.backend.notices, []);
  });

  it('asks again after it stood still: another worker may have sent the notice meanwhile', async () => {
    let asked = 0;
    const now = performance.now.bind(performance);
    askTemporal = async () => {
      asked += 1;
      if (asked === 2) throw new ActivityNotFoundError('timed out');
      // As under SIGSTOP: the answer was there in time, and is read late.
      performance.now = () => now() + 60_000;
    };
    try {
      await assert.rejects(run(failed), isType('CANCELLED'));
    } finally {
      performance.now = now;
    }
    assert.deepEqual([asked, pod.backend.notices], [2, []]);
  });

  it('tells of progress in percent', async () => {
    await run({ kind: 'progress', ...job, currentEpoch: 1, totalEpochs: 3, estimatedSeconds: 90 });
    assert.deepEqual(pod.backend.notices, [
      {
        origin: job.webhookOrigin,
        notice: {
          style_id: 7,
          progress: { current_epoch: 1, total_epochs: 3, progress_percent: 33.3, estimated_seconds: 90 },
        },
        webhookId: null,
      },
    ]);
  });

  it('tells of the weights', async () => {
    const weights = { modelUri: 's3://b/w', loss: 0.1, epochs: 3, rank: 16, alpha: 32 };
    await run({ kind: 'complete', ...job, webhookId: 'id', ...weights });
    assert.deepEqual(pod.backend.notices[0], {
      origin: job.webhookOrigin,
      notice: {
        style_id: 7,
        model_path: 's3://b/w',
        model_url: 's3://b/w',
        training_metric: { loss: 0.1, epochs: 3 },
        metadata: { training_epochs: 3, lora_rank: 16, lora_alpha: 32 },
      },
      webhookId: 'id',
    });
  });

  it('tells of a failure', async () => {
    await run({ kind: 'failed', ...job, webhookId: 'id', errorCode: 'CANCELLED', errorMessage: 'Why.' });
    assert.deepEqual(pod.backend.notices[0], {
      origin: job.webhookOrigin,
      notice: { style_id: 7, error_message: 'Why.', error_code: 'CANCELLED' },
      webhookId: 'id',
    });
  });
});
