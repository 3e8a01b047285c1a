import { createHash } from 'node:crypto';
import { ListObjectsV2Command } from '@aws-sdk/client-s3';
import { MAX_MANIFEST_BYTES, manifestPrefix, parseManifest } from '../../../common/checkpoint-manifest.ts';
import { s3Client } from '../../../scripts/stack/s3-server.ts';
import { until } from '../../integration/support/until.ts';
import type { FaultCase } from '../fault-case.ts';
import type { Evidence, StoredObject } from '../invariants.ts';
import { readHistory, textOf } from './history.ts';
import type { HistoryEvent } from './history.ts';
import type { Closing, Scene } from './scene.ts';
import type { World } from './world.ts';

const BUCKET = 'brushwork';
const RUNS_LIMIT_MS = 5_000;
const MAX_OBJECT_BYTES = 2 ** 28;

/** What a job has in the bucket. */
export async function objectsOf({ world, job }: Scene): Promise<StoredObject[]> {
  const client = s3Client(world.service.stack.s3);
  try {
    const objects: StoredObject[] = [];
    for (const area of ['checkpoints', 'staging', 'models']) {
      const Prefix = `${area}/style_${job.styleId}/`;
      const { Contents = [] } = await client.send(new ListObjectsV2Command({ Bucket: BUCKET, Prefix }));
      for (const { Key = '', ETag = '', LastModified } of Contents) {
        objects.push({ key: Key, etag: ETag, writtenAtMs: LastModified?.getTime() ?? 0 });
      }
    }
    return objects;
  } finally {
    client.destroy();
  }
}

/** Manifests in the bucket that are damaged, or whose data is. */
async function damagedCheckpoints({ world, job }: Scene): Promise<string[]> {
  const { store } = world.service;
  const damaged: string[] = [];
  for (const key of await store.list(BUCKET, manifestPrefix(job))) {
    try {
      const bytes = await store.getBytes({ bucket: BUCKET, key }, { maxBytes: MAX_MANIFEST_BYTES });
      for (const { key: dataKey, sha256 } of parseManifest(bytes ?? Buffer.alloc(0), key, job).objects) {
        const data = await store.getBytes({ bucket: BUCKET, key: dataKey }, { maxBytes: MAX_OBJECT_BYTES });
        if (data === null || createHash('sha256').update(data).digest('hex') !== sha256) damaged.push(dataKey);
      }
    } catch {
      damaged.push(key);
    }
  }
  return damaged;
}

/** Workflow runs of a job with their histories, oldest first. */
async function runsOf({ world, job }: Scene, expected: number): Promise<{ events: HistoryEvent[]; text: string }[]> {
  const { client } = world.service;
  const workflowId = `train-style-${job.styleId}`;
  const find = async () => {
    const found = [];
    for await (const run of client.workflow.list({ query: `WorkflowId = '${workflowId}'` })) found.push(run);
    return found.sort((a, b) => a.startTime.getTime() - b.startTime.getTime());
  };
  let runs = await find();
  // What is listed lags behind a little.
  const complete = async () => {
    runs = await find();
    return runs.length >= expected && runs.every(({ status }) => status.name !== 'RUNNING');
  };
  await until(complete, 'runs', RUNS_LIMIT_MS).catch(() => undefined);
  const histories = await Promise.all(
    runs.map(({ runId }) => client.workflow.getHandle(workflowId, runId).fetchHistory()),
  );
  const known = new Set<string>();
  return histories.map(({ events }) => ({ events: readHistory(events ?? [], known), text: textOf(events) }));
}

/** Texts that must be nowhere. */
export function secretsOf(world: World): string[] {
  const { s3, amqpUrl } = world.service.stack;
  return [world.token, s3.secretAccessKey, new URL(amqpUrl).password];
}

/** When which pod answered for the job. */
export function holdsIn(events: readonly HistoryEvent[]): { atMs: number; queue: string }[] {
  return events.flatMap(({ held }) => held ?? []);
}

/** Gathers all that is known of a case after its end; `objects.later` is still to come. */
export async function gather(
  scene: Scene,
  faultCase: FaultCase,
  closing: Closing,
  atEnd: StoredObject[],
): Promise<Evidence> {
  const { world, job, backend, samples } = scene;
  const runs = await runsOf(scene, faultCase.runs);
  const events = runs.flatMap((run) => run.events);
  const requests = backend.requests.filter(({ body }) => body?.['style_id'] === job.styleId);
  return {
    epochs: job.epochs,
    outcome: faultCase.outcome,
    maxTold: faultCase.maxTold,
    isRefused: faultCase.isRefused === true,
    errorCode: faultCase.errorCode ?? null,
    toldBefore: faultCase.toldBefore ?? null,
    isPublished: faultCase.isPublished === true,
    needsOperator: faultCase.needsOperator === true,
    resumesFrom: faultCase.resumesFrom ?? null,
    closed: closing.status,
    runs: { expected: faultCase.runs, found: runs.length },
    requests,
    events,
    samples,
    firstSteps: scene.firstSteps(),
    announced: await scene.announced.all(),
    published: await world.service.weightsOf(job),
    reference: await world.reference(),
    objects: { atEnd, later: atEnd },
    zombieWrites: scene.zombieWrites(holdsIn(events)),
    damagedCheckpoints: faultCase.staysDamaged === true ? [] : await damagedCheckpoints(scene),
    secrets: secretsOf(world),
    texts: [
      ...runs.map(({ text }) => text),
      JSON.stringify(samples.map(({ status }) => status)),
      JSON.stringify(requests.map(({ body }) => body)),
    ],
  };
}
