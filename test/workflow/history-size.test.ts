import assert from 'node:assert/strict';
import { trainingConfig } from '../support/training-config.ts';
import { resultOf, sceneForEachTest } from './support/harness.ts';
import type { Scene } from './support/harness.ts';

/** As many as a job of few pictures may have. */
const EPOCHS = 500;
/** A server warns at 10,240 events and ends a workflow at 51,200: there must be room for lost pods and retries. */
const MAX_EVENTS = 2_000;

describe('the history of a long job', function () {
  this.timeout(120_000);
  let scene: Scene;

  sceneForEachTest((made) => (scene = made));

  it(`has fewer than ${MAX_EVENTS} events for ${EPOCHS} epochs`, async () => {
    const { world } = scene;
    world.config = trainingConfig({ epochs: EPOCHS });
    await scene.addPod('a');
    const handle = await scene.start({ ...scene.input(), expectedEpochs: EPOCHS });
    const { epochs } = await resultOf(handle);
    assert.equal(epochs, EPOCHS);
    assert.equal(world.manifests.size, EPOCHS / 10);
    const { events } = await handle.fetchHistory();
    assert.ok(events !== null && events !== undefined);
    assert.ok(events.length > world.manifests.size && events.length < MAX_EVENTS, `${events.length} events`);
  });
});
