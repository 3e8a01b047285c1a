import { setTimeout as sleep } from 'node:timers/promises';
import { fromTheStart } from './fault-case.ts';
import type { FaultCase } from './fault-case.ts';
import { momentOf } from './moments.ts';
import type { Moment } from './moments.ts';
import { SETTLE_MS, frozenFor, helperKilled, podOf } from './strikes.ts';

/** `pod.fence` of temporal.yaml. */
const FENCE_MS = 25_000;

/** How long a pod is cut off, and how many pods that costs the job. */
const PARTITIONS = [
  { durationMs: 10_000, podLosses: 0 },
  { durationMs: 60_000, podLosses: 1 },
  { durationMs: 300_000, podLosses: 1 },
];

const WHEN = ['train:step', 'checkpoint:data', 'upload:half'];

/** What is done to a job in real time, and how many pods that costs it. */
function inRealTime(
  { fault, moment, about }: { fault: string; moment: Moment; about: string },
  podLosses: number,
  strike: FaultCase['strike'],
): FaultCase {
  return fromTheStart(fault, moment.name, `${about}, with the time limits of production`, {
    prepare: (scene) => scene.arm(moment),
    reach: (scene) => scene.reach(moment),
    strike,
    afterwards: async (scene) => {
      const lost = (await scene.status())?.podLosses;
      if (lost !== podLosses) throw new Error(`${lost} pods were lost instead of ${podLosses}.`);
    },
  });
}

const partitioned = PARTITIONS.flatMap(({ durationMs, podLosses }) =>
  WHEN.map(momentOf).map((moment) => {
    const seconds = durationMs / 1000;
    const about = `the pod cut off from Temporal for ${seconds} s`;
    return inRealTime({ fault: `pod-partitioned-${seconds}-s`, moment, about }, podLosses, async (scene, reached) => {
      const pod = await podOf(scene, reached);
      pod.temporal.stall();
      if (podLosses > 0) scene.loses(pod, FENCE_MS + SETTLE_MS);
      reached.release();
      await sleep(durationMs);
      pod.temporal.heal();
    });
  }),
);

const frozen = WHEN.map(momentOf).map((moment) => {
  const about = 'SIGSTOP of pod worker and trainer for 60 s, then SIGCONT';
  return inRealTime({ fault: 'pod-frozen-60-s', moment, about }, 1, frozenFor(60_000));
});

const controlGone = ['train:step', 'promote:copied'].map(momentOf).map((moment): FaultCase => {
  const what = { fault: 'control-gone-180-s', moment, about: 'no control worker for 180 s' };
  return { ...inRealTime(what, 0, helperKilled('control', 180_000)), isShared: true };
});

/** Cases with the time limits of production: they show that the proportions of the others, which are scaled down, are right. */
export const REAL_TIME_CASES: readonly FaultCase[] = [...partitioned, ...frozen, ...controlGone];
