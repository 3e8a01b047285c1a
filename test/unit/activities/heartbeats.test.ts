import assert from 'node:assert/strict';
import { createControlActivities } from '../../../activities/index.ts';
import type { ControlActivities } from '../../../activities/index.ts';
import { heartbeatsOf, until } from './support/heartbeats.ts';
import { TestPod, quietEnvironment, temporalWith } from './support/pod.ts';

const BEATS = 3;

describe('heartbeats of the control activities', () => {
  let pod: TestPod;
  let control: ControlActivities;

  beforeEach(() => {
    pod = new TestPod();
    control = createControlActivities({ ...pod.deps, uriScheme: 's3', keepFinalCheckpoints: 1 });
  });
  afterEach(() => pod.close());

  /** Runs an activity on a store that does not answer before the heartbeats have come, or would have. */
  async function beatsOf(heartbeatTimeoutMs: number, activity: 'findResumePoint' | 'promote'): Promise<number> {
    const environment = quietEnvironment(temporalWith(), { heartbeatTimeoutMs });
    const beats = heartbeatsOf(environment);
    const slow = (async () => {
      const enough = until(() => beats.length >= BEATS, 'heartbeats', 300);
      await enough.catch(() => undefined);
      throw new Error('too slow');
    }) as () => Promise<never>;
    pod.store.list = slow;
    pod.store.copy = slow;
    const job = { styleId: 7, taskId: 'task' };
    const key = 'staging/lora_weights.safetensors';
    const run =
      activity === 'promote'
        ? environment.run(control.promote, {
            ...{ ...job, stagingPrefix: 'staging/' },
            objects: [{ key, sizeBytes: 1, sha256: '0' }],
          })
        : environment.run(control.findResumePoint, { ...job, excludedManifestKeys: [] });
    await assert.rejects(run, /too slow/);
    return beats.length;
  }

  for (const activity of ['findResumePoint', 'promote'] as const) {
    it(`${activity} sends some within its limit, so that a dead worker is noticed soon`, async () => {
      assert.equal(await beatsOf(50, activity), BEATS);
    });

    it(`${activity} sends none where the job, begun by an earlier version, sets no limit`, async () => {
      assert.equal(await beatsOf(0, activity), 0);
    });
  }
});
