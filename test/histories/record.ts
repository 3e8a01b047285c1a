// Records the histories that test/workflow/replay.test.ts replays: run `node test/histories/record.ts`, with the names of
// those to make anew (default: all), when a change of the workflow is meant to break the replay of jobs that run, and say
// so in the changelog. Old ones stay as they are otherwise: they stand for jobs that an older version began.
import { writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { historyToJSON } from '@temporalio/common/lib/proto-utils.js';
import type { WorkflowHandle } from '@temporalio/client';
import { Scene, inPhase, resultOf, startHarness } from '../workflow/support/harness.ts';
import type { Harness } from '../workflow/support/harness.ts';
import { failure, until } from '../workflow/support/world.ts';

const ROOT = join(import.meta.dirname, '../..');
const fromEpochOf = (input: unknown) => (input as { fromEpoch: number }).fromEpoch;

/** A job whose first pod dies in its second chunk, and that is paused and resumed on the second. */
async function podLost(scene: Scene): Promise<WorkflowHandle> {
  const { world } = scene;
  const first = await scene.addPod('gpu-1');
  const gate = Promise.withResolvers<void>();
  world.when('trainEpochChunk', (pod, input) => {
    if (fromEpochOf(input) !== 10) return undefined;
    return pod === 'gpu-1' ? world.hang() : gate.promise;
  });
  const handle = await scene.start();
  await until(() => world.manifests.has(10), 'first checkpoint');
  await until(() => world.log.includes('trainEpochChunk@gpu-1 10-20'), 'second chunk');
  await scene.addPod('gpu-2');
  first.kill();
  await until(() => world.log.includes('trainEpochChunk@gpu-2 10-20'), 'second pod', 30_000);
  await handle.signal('pauseTraining');
  gate.resolve();
  await inPhase(handle, 'paused');
  await handle.signal('resumeTraining');
  await resultOf(handle);
  return handle;
}

/** A job that looks at its pictures twice, since the store is down at first, before it waits for a pod. */
async function inspected(scene: Scene): Promise<WorkflowHandle> {
  const { world } = scene;
  let looks = 0;
  world.when('inspectPictures', () => {
    looks += 1;
    if (looks === 1) throw failure('STORAGE_UNAVAILABLE', true);
  });
  const handle = await scene.start();
  await inPhase(handle, 'waiting-for-pod', 30_000);
  await scene.addPod('gpu-1');
  await resultOf(handle);
  return handle;
}

/** A job that is cancelled in the middle of a chunk. */
async function cancelled(scene: Scene): Promise<WorkflowHandle> {
  const { world } = scene;
  world.when('trainEpochChunk', (_pod, input) => (fromEpochOf(input) === 10 ? world.hang() : undefined));
  await scene.addPod('gpu-1');
  const handle = await scene.start();
  await until(() => world.log.includes('trainEpochChunk@gpu-1 10-20'), 'second chunk');
  await handle.cancel();
  await handle.result().catch(() => undefined);
  return handle;
}

/**
 * A job whose pod can't reach the store nine times in a row. The recorded one comes from workflow code that stayed on that pod
 * for an hour, with waits of milliseconds instead of minutes.
 */
async function storeDown(scene: Scene): Promise<WorkflowHandle> {
  const { world } = scene;
  let tries = 0;
  world.when('download', () => {
    tries += 1;
    if (tries <= 9) throw failure('STORAGE_UNAVAILABLE', true);
  });
  await scene.addPod('gpu-1');
  const handle = await scene.start();
  await resultOf(handle);
  return handle;
}

/**
 * A job whose control worker can't reach the store when it looks for a checkpoint, and for good when it publishes. The first
 * recorded one comes from workflow code that left the tries to Temporal, gave the pod back and failed at the first error that
 * came through; the second one shows each try.
 */
async function controlStoreDown(scene: Scene): Promise<WorkflowHandle> {
  const { world } = scene;
  let looks = 0;
  world.when('findResumePoint', () => {
    looks += 1;
    if (looks <= 3) throw failure('STORAGE_UNAVAILABLE', true);
  });
  world.when('promote', () => {
    throw failure('STORAGE_UNAVAILABLE', true);
  });
  await scene.addPod('gpu-1');
  const input = scene.input();
  input.settings.limits.promote.scheduleToCloseMs = 5_000;
  const handle = await scene.start(input);
  await handle.result().catch(() => undefined);
  return handle;
}

/**
 * A refusal that the backend hears of at the third try. The recorded one comes from workflow code that told it whatever had
 * happened to the style since.
 */
async function refused(scene: Scene): Promise<WorkflowHandle> {
  const { world } = scene;
  let tries = 0;
  world.when('notify', () => {
    tries += 1;
    if (tries <= 2) throw failure('WEBHOOK_UNAVAILABLE', true);
  });
  const { settings, webhookOrigin } = scene.input();
  const why = { errorCode: 'INVALID_REQUEST', errorMessage: 'The job message is not usable: task_id is missing.' };
  const handle = await scene.startRefusal({ styleId: 42, messageId: 'refused-42-abc', webhookOrigin, settings, ...why });
  await handle.result();
  return handle;
}

async function record(name: string, harness: Harness, story: (scene: Scene) => Promise<WorkflowHandle>): Promise<void> {
  const scene = new Scene(harness);
  try {
    const handle = await story(scene);
    const history = await handle.fetchHistory();
    // Stacks name the files that were run.
    const json = historyToJSON(history).replaceAll(`@${hostname()}"`, '@recorder"').replaceAll(ROOT, '/brushwork');
    writeFileSync(join(import.meta.dirname, `${name}.json`), `${json}\n`);
    console.log(`${name}: ${history.events?.length ?? 0} events`);
  } finally {
    await scene.close();
  }
}

const STORIES = {
  ...{ 'pod-lost': podLost, cancelled, inspected, 'store-down': storeDown, refused },
  ...{ 'control-store-down-1': controlStoreDown, 'control-store-down-2': controlStoreDown },
};
const wanted = process.argv.slice(2);
const harness = await startHarness();
try {
  for (const [name, story] of Object.entries(STORIES)) {
    if (wanted.length === 0 || wanted.includes(name)) await record(name, harness, story);
  }
} finally {
  await harness.stop();
}
