import assert from 'node:assert/strict';
import type { WorkflowHandle } from '@temporalio/client';
import type { ControlDependencies } from '../../activities/dependencies.ts';
import { notify } from '../../activities/notify.ts';
import { toApplicationFailure } from '../../activities/to-application-failure.ts';
import type { NotifyInput } from '../../common/activity-types.ts';
import { WebhookUnavailableError } from '../../common/errors.ts';
import { workflowIdOf } from '../../common/style-trainings.ts';
import { inPhase, sceneForEachTest } from './support/harness.ts';
import type { Scene } from './support/harness.ts';
import { until } from './support/world.ts';

describe('a refused message of which the backend does not know yet', function () {
  this.timeout(60_000);
  let scene: Scene;
  let styleId = 4200;
  let isDown = true;
  let tries = 0;
  let heard: string[] = [];

  sceneForEachTest((made) => (scene = made));

  /** Notices go through the real activity, which asks the real server, to a backend of this test. */
  beforeEach(() => {
    styleId += 1;
    [isDown, tries, heard] = [true, 0, []];
    const failed = async (_origin: string, { error_code: code }: { error_code: string }) => {
      tries += 1;
      if (isDown) throw new WebhookUnavailableError('The backend is down.');
      heard.push(code);
    };
    const deps = { backend: { failed } } as unknown as ControlDependencies;
    scene.world.when('notify', async (_pod, input) => {
      const notice = input as NotifyInput;
      if (notice.kind !== 'failed') return;
      await notify(notice, deps).catch((error: unknown) => {
        throw toApplicationFailure(error);
      });
    });
  });

  async function refuse(firstSeenMs?: number): Promise<WorkflowHandle> {
    const { settings, webhookOrigin } = scene.input();
    settings.limits.notify.scheduleToCloseMs = 60_000;
    settings.limits.notify.retry.initialIntervalMs = 2_000;
    const why = { errorCode: 'INVALID_REQUEST', errorMessage: 'No task_id.' };
    const seen = firstSeenMs === undefined ? {} : { firstSeenMs };
    return scene.startRefusal({ styleId, messageId: 'refused', webhookOrigin, settings, ...why, ...seen });
  }

  /** Starts a training under the style's own id; there is no pod for it. */
  async function train(): Promise<WorkflowHandle> {
    const input = scene.input({ styleId });
    const options = { taskQueue: scene.controlQueue, workflowId: workflowIdOf(styleId), args: [input] };
    return scene.client.workflow.start('trainStyle', { ...options, memo: { taskId: input.taskId } });
  }

  it('is told once it listens', async () => {
    const refusal = await refuse();
    await until(() => tries > 0, 'first try');
    isDown = false;
    assert.match((await refusal.result()) as string, /was told: INVALID_REQUEST/);
    assert.deepEqual(heard, ['INVALID_REQUEST']);
  });

  it('is not told any more once a corrected one trains: the backend would take it for the end of that training', async () => {
    const refusal = await refuse();
    await until(() => tries > 0, 'first try');
    const training = await train();
    await inPhase(training, 'waiting-for-pod');
    isDown = false;
    assert.match((await refusal.result()) as string, /in training since the message was refused.*not sent any more/);
    assert.deepEqual([tries, heard], [1, []]);
    await training.terminate();
  });

  it('is not told after the corrected one has been trained either', async () => {
    const refusal = await refuse();
    await until(() => tries > 0, 'first try');
    await (await train()).terminate();
    isDown = false;
    assert.match((await refusal.result()) as string, /in training since/);
    assert.deepEqual(heard, []);
  });

  it('is told after a training that had ended before', async () => {
    isDown = false;
    await (await train()).terminate();
    await (await refuse()).result();
    assert.deepEqual(heard, ['INVALID_REQUEST']);
  });

  it('is not told when the style was trained between its first refusal and one of today', async () => {
    isDown = false;
    const firstSeenMs = Date.now();
    await (await train()).terminate();
    assert.match((await (await refuse(firstSeenMs)).result()) as string, /in training since/);
    assert.deepEqual(heard, []);
  });
});
