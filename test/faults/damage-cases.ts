import { manifestPrefix } from '../../common/checkpoint-manifest.ts';
import { BUCKET, fromTheStart } from './fault-case.ts';
import type { FaultCase } from './fault-case.ts';
import { momentOf } from './moments.ts';
import { killPodWith } from './strikes.ts';
import type { Scene } from './support/scene.ts';

/** How the newest object of a checkpoint is written anew; null: it is deleted. */
interface Rewriting {
  part: 'manifests' | 'data';
  body: (bytes: Buffer) => Buffer | null;
}

/** What may become of a checkpoint in the bucket before a pod needs it. */
const DAMAGES: Record<string, Rewriting & { about: string }> = {
  'data-cut': { about: 'the newest data is cut short', part: 'data', body: (bytes) => bytes.subarray(0, 1000) },
  'data-flipped': {
    about: 'a bit of the newest data is flipped',
    part: 'data',
    body: (bytes) => {
      const copy = Buffer.from(bytes);
      copy[copy.length - 9] = (copy[copy.length - 9] ?? 0) ^ 4;
      return copy;
    },
  },
  'data-gone': { about: 'the newest data is gone', part: 'data', body: () => null },
  'manifest-cut': {
    about: 'the newest manifest is cut short',
    part: 'manifests',
    body: (bytes) => bytes.subarray(0, 99),
  },
  'manifest-empty': { about: 'the newest manifest is empty', part: 'manifests', body: () => Buffer.alloc(0) },
  'manifest-gone': { about: 'the newest manifest is gone', part: 'manifests', body: () => null },
  'manifest-of-another': {
    about: 'the newest manifest is that of another task',
    part: 'manifests',
    body: (bytes) => Buffer.from(bytes.toString().replaceAll(/"taskId":"[^"]*"/g, '"taskId":"another"')),
  },
};

async function rewriteNewest(scene: Scene, { part, body }: Rewriting): Promise<void> {
  const { store } = scene.world.service;
  const keys = await store.list(BUCKET, manifestPrefix(scene.job).replace('manifests', part));
  const key = keys.sort().at(-1);
  if (key === undefined) throw new Error('There is no checkpoint yet.');
  const bytes = await store.getBytes({ bucket: BUCKET, key }, { maxBytes: 2 ** 28 });
  const damaged = bytes === null ? null : body(bytes);
  if (damaged === null) await store.deleteAll(BUCKET, [key]);
  else await store.put({ bucket: BUCKET, key }, damaged);
}

/** Where it is damaged, and the epoch of the checkpoint before the newest one by then. */
const RESUMED_FROM = { 'checkpoint:end': 2, 'upload:begin': 4 };

/** The newest checkpoint is damaged, and the pod killed. */
export const damaged = Object.entries(RESUMED_FROM).flatMap(([name, resumesFrom]) =>
  Object.entries(DAMAGES).map(([damage, how]): FaultCase => {
    const moment = momentOf(name);
    return {
      ...fromTheStart(`checkpoint-${damage}`, name, `${how.about}, and the pod is killed`, {
        prepare: () => undefined,
      }),
      resumesFrom,
      prepare: (scene) => scene.arm(moment),
      reach: (scene) => scene.reach(moment),
      strike: async (scene, { pid }) => {
        await killPodWith(scene, pid);
        await rewriteNewest(scene, how);
      },
    };
  }),
);

/** A pod of a newer version has been here and was taken out of service, or one of a version that nobody remembers. */
const FORMATS = { newer: 2, older: 0 };

/** The newest checkpoint is one of another version, and the pod killed. */
export const otherFormat = Object.entries(FORMATS).map(([name, schema]): FaultCase => {
  const moment = momentOf('checkpoint:end');
  return fromTheStart(
    `checkpoint-of-${name}-format`,
    moment.name,
    `the newest manifest has a ${name} format, and the pod is killed`,
    {
      ...{ outcome: 'failed', errorCode: 'CHECKPOINT_INCOMPATIBLE', staysDamaged: true },
      prepare: (scene) => scene.arm(moment),
      reach: (scene) => scene.reach(moment),
      strike: async (scene, { pid }) => {
        await killPodWith(scene, pid);
        const body = (bytes: Buffer) => Buffer.from(bytes.toString().replace('"schema":1', `"schema":${schema}`));
        await rewriteNewest(scene, { part: 'manifests', body });
      },
    },
  );
});

/** As a manifest was written before it held its digest and the base model's fingerprint. */
function ofPreviousVersion(bytes: Buffer): Buffer {
  const { digest, baseModel, ...manifest } = JSON.parse(bytes.toString()) as Record<string, unknown>;
  if (typeof digest !== 'string' || typeof baseModel !== 'string')
    throw new Error('The manifest is an old one already.');
  return Buffer.from(JSON.stringify(manifest));
}

/** The newest checkpoint was written by a pod of the version before, and the pod is killed: the job goes on from it. */
export const previousVersion = Object.keys(RESUMED_FROM).map((name): FaultCase => {
  const moment = momentOf(name);
  const about = 'the newest manifest is one of the version before, and the pod is killed';
  return fromTheStart('checkpoint-of-previous-version', name, about, {
    prepare: (scene) => scene.arm(moment),
    reach: (scene) => scene.reach(moment),
    strike: async (scene, { pid }) => {
      await killPodWith(scene, pid);
      await rewriteNewest(scene, { part: 'manifests', body: ofPreviousVersion });
    },
  });
});
