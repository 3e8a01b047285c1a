import { setTimeout as sleep } from 'node:timers/promises';
import { fromTheStart } from './fault-case.ts';
import type { FaultCase } from './fault-case.ts';
import { MOMENTS } from './moments.ts';
import { SETTLE_MS, podOf } from './strikes.ts';

/** `pod.fence` of temporal.yaml. */
const FENCE_MS = 25_000;

/** How long a pod is cut off, and how many pods that costs the job. */
const PARTITIONS = [
  { durationMs: 10_000, podLosses: 0 },
  { durationMs: 60_000, podLosses: 1 },
  { durationMs: 300_000, podLosses: 1 },
];

const WHEN = ['train:step', 'checkpoint:data', 'upload:half'];

/** Cases with the time limits of production: they show that the proportions of the others, which are scaled down, are right. */
export const REAL_TIME_CASES: readonly FaultCase[] = PARTITIONS.flatMap(({ durationMs, podLosses }) =>
  MOMENTS.filter(({ name }) => WHEN.includes(name)).map((moment): FaultCase => {
    const seconds = durationMs / 1000;
    const about = `the pod cut off from Temporal for ${seconds} s, with the time limits of production`;
    return fromTheStart(`pod-partitioned-${seconds}-s`, moment.name, about, {
      prepare: (scene) => scene.arm(moment),
      reach: (scene) => scene.reach(moment),
      strike: async (scene, reached) => {
        const pod = await podOf(scene, reached);
        pod.temporal.stall();
        if (podLosses > 0) scene.zombies.push({ pod, sinceMs: Date.now() + FENCE_MS + SETTLE_MS });
        reached.release();
        await sleep(durationMs);
        pod.temporal.heal();
      },
      afterwards: async (scene) => {
        const lost = (await scene.status())?.podLosses;
        if (lost !== podLosses) throw new Error(`${lost} pods were lost instead of ${podLosses}.`);
      },
    });
  }),
);
