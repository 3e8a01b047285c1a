import { Context } from '@temporalio/activity';
import { rm } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { PodLostError } from '../common/errors.ts';
import { faultPoint } from '../common/fault-point.ts';
import { reasonOf } from '../common/logger.ts';
import type { HoldPodInput } from '../common/activity-types.ts';
import type { PodHeld } from '../common/types.ts';
import type { PodDependencies } from './dependencies.ts';
import { heartbeatDirectly } from './direct-heartbeat.ts';
import type { Standing } from './direct-heartbeat.ts';

const FENCE_CHECKS_PER_LIMIT = 25;
const PAUSES_PER_BEAT = 5;
/** A trainer that does not stop at a step boundary is ended after 3 s, and one that does not end is given up 5 s later. */
const VACATE_LIMIT_MS = 10_000;

/**
 * Gives the pod's only slot to a job until the workflow cancels the hold. Its heartbeats are the pod's sign of life: when
 * none is accepted for too long, another pod may have taken over, so this one stops its trainer and writes nothing more.
 */
export async function holdPod({ holdId, taskId }: HoldPodInput, deps: PodDependencies): Promise<never> {
  const { fence, trainer, timing, pod } = deps;
  const context = Context.current();
  const endTrainer = () => void trainer.kill();
  fence.open(holdId);
  const lost = fence.signalOf(holdId);
  lost.addEventListener('abort', endTrainer);
  const watch = setInterval(() => {
    try {
      fence.check(holdId);
    } catch {
      // The fence has told everybody by its signal.
    }
  }, timing.fenceMs / FENCE_CHECKS_PER_LIMIT);
  try {
    const runtime = await deps.runtime();
    const held: PodHeld = {
      holdId,
      queue: pod.queue,
      host: pod.host,
      gpu: runtime.gpuName ?? 'cpu',
      vramMiB: runtime.gpuMemoryMiB,
    };
    await faultPoint('hold:taken', taskId);
    await announce(held);
    await faultPoint('hold:announced', taskId);
    const over = AbortSignal.any([context.cancellationSignal, lost]);
    for (;;) {
      over.throwIfAborted();
      // The SDK's own heartbeat keeps the local time limit at bay and brings cancels; the direct one tells whether the
      // server takes it.
      context.heartbeat();
      const sentAtMs = performance.now();
      const isAccepted = await beat(timing.beatMs);
      if (isAccepted) fence.accepted(holdId, sentAtMs);
      over.throwIfAborted();
      // The time limit runs: a beat that got lost is repeated sooner than the next one would come.
      const pauseMs = isAccepted ? timing.beatMs : timing.beatMs / PAUSES_PER_BEAT;
      await sleep(pauseMs, undefined, { signal: over }).catch(() => undefined);
    }
  } finally {
    clearInterval(watch);
    lost.removeEventListener('abort', endTrainer);
    fence.close(holdId, new PodLostError('The hold has ended.'));
    // The slot is free when this returns: nothing of this job may still be at work on the trainer by then.
    await fence.vacated(holdId, VACATE_LIMIT_MS);
    await rm(deps.jobDirectory(holdId), { recursive: true, force: true });
  }
}

async function announce(held: PodHeld): Promise<void> {
  const { client, info } = Context.current();
  const execution = info.workflowExecution;
  if (execution === undefined) throw new PodLostError('A hold belongs to a workflow.');
  try {
    await client.workflow.getHandle(execution.workflowId, execution.runId).signal('podHeld', held);
  } catch (error) {
    throw new PodLostError('The pod could not tell the job that it is held.', { cause: error });
  }
}

/** Sends one heartbeat; false when the server could not be reached in time. */
async function beat(timeoutMs: number): Promise<boolean> {
  let standing: Standing;
  try {
    standing = await heartbeatDirectly(timeoutMs);
  } catch (error) {
    Context.current().log.warn('Heartbeat was not accepted', { error: reasonOf(error) });
    return false;
  }
  if (standing !== 'unknown') return true;
  throw new PodLostError('The job does not know this hold any more: it goes on elsewhere or is over.');
}
