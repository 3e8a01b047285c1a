import type { Config } from './config-types.ts';
import { picturesQueue } from './pictures-queue.ts';
import type { LimitName } from './types.ts';

const ON_PODS: readonly LimitName[] = ['holdPod', 'download', 'trainEpochChunk', 'checkpoint', 'upload'];

/** Each with the sections that it compares. */
const CHECKS: readonly { sections: readonly string[]; check: (config: Config, faults: string[]) => void }[] = [
  { sections: ['queues'], check: checkQueues },
  { sections: ['pod', 'activities'], check: checkPod },
  { sections: ['activities', 'backend'], check: checkNotify },
];

/**
 * Checks what more than one setting decides.
 *
 * @param config - as read
 * @param faults - receives what contradicts itself
 * @param isFaulty - whether a section is wrong by itself: nothing that it decides is checked then
 */
export function checkTogether(config: Config, faults: string[], isFaulty: (section: string) => boolean): void {
  for (const { sections, check } of CHECKS) if (!sections.some(isFaulty)) check(config, faults);
}

function checkNotify({ limits, backend }: Config, faults: string[]): void {
  if (limits.notify.startToCloseMs > backend.timeoutMs) return;
  faults.push(
    'activities.notify.startToClose must be longer than backend.timeout, or an answer in the last moment is lost.',
  );
}

function checkQueues({ queues: { control, pods } }: Config, faults: string[]): void {
  const taken = [control, picturesQueue(control)];
  if (taken.includes(pods)) faults.push(`queues.pods must be another queue than ${taken.join(' and ')}: name another.`);
}

function checkPod({ pod, limits }: Config, faults: string[]): void {
  const hold = limits.holdPod.heartbeatMs;
  if (pod === null || hold === null) return;
  if (pod.fenceMs <= hold)
    faults.push('pod.fence must be longer than activities.holdPod.heartbeat: a pod gives up after Temporal has.');
  if (pod.beatMs * 3 > hold)
    faults.push('pod.beat must be at most a third of activities.holdPod.heartbeat, or one lost beat costs the pod.');
  const tooShort = ON_PODS.filter((name) => pod.heartbeatThrottleMs * 3 > (limits[name].heartbeatMs ?? Infinity));
  if (tooShort.length > 0) {
    const names = tooShort.map((name) => `activities.${name}.heartbeat`).join(', ');
    faults.push(`pod.heartbeatThrottle must be at most a third of ${names}, or one lost heartbeat costs the pod.`);
  }
}
