// Records the histories that test/workflow/replay.test.ts replays: run `node test/histories/record.ts` when a change of
// the workflow is meant to break the replay of jobs that run, and say so in the changelog.
import { writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { historyToJSON } from '@temporalio/common/lib/proto-utils.js';
import type { WorkflowHandle } from '@temporalio/client';
import { Scene, inPhase, resultOf, startHarness } from '../workflow/support/harness.ts';
import type { Harness } from '../workflow/support/harness.ts';
import { until } from '../workflow/support/world.ts';

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

async function record(name: string, harness: Harness, story: (scene: Scene) => Promise<WorkflowHandle>): Promise<void> {
  const scene = new Scene(harness);
  try {
    const handle = await story(scene);
    const history = await handle.fetchHistory();
    const json = historyToJSON(history).replaceAll(`@${hostname()}"`, '@recorder"');
    writeFileSync(join(import.meta.dirname, `${name}.json`), `${json}\n`);
    console.log(`${name}: ${history.events?.length ?? 0} events`);
  } finally {
    await scene.close();
  }
}

const harness = await startHarness();
try {
  await record('pod-lost', harness, podLost);
  await record('cancelled', harness, cancelled);
} finally {
  await harness.stop();
}
