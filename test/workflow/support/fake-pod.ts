import { Context } from '@temporalio/activity';
import { NativeConnection, Worker } from '@temporalio/worker';
import type { PodActivities } from '../../../activities/index.ts';
import { chunkResult } from './world.ts';
import type { World } from './world.ts';

/** A pod worker with the real two queues and no training. */
export class FakePod {
  readonly host: string;
  readonly queue: string;
  readonly #world: World;
  readonly #workers: Worker[] = [];
  readonly #runs: Promise<void>[] = [];
  #connection: NativeConnection | null = null;
  #dead = false;

  constructor(world: World, host: string) {
    this.#world = world;
    this.host = host;
    this.queue = `pod-${host}-${crypto.randomUUID()}`;
  }

  /** Starts to poll `podsQueue` and the pod's own queue. */
  async start(temporalAddress: string, podsQueue: string): Promise<this> {
    const activities = this.#activities();
    // A pod is a process of its own, and one connection does not take two workers for the same queue.
    const connection = await NativeConnection.connect({ address: temporalAddress });
    this.#connection = connection;
    const common = { connection, maxHeartbeatThrottleInterval: 100, shutdownForceTime: 2000 };
    const shared = { ...common, taskQueue: podsQueue, activities, maxConcurrentActivityTaskExecutions: 1 };
    for (const options of [shared, { ...common, taskQueue: this.queue, activities }]) {
      const worker = await Worker.create(options);
      this.#workers.push(worker);
      this.#runs.push(worker.run());
    }
    return this;
  }

  /** From now on no activity of this pod answers or beats, as after a SIGKILL. */
  kill(): void {
    this.#dead = true;
  }

  async close(): Promise<void> {
    for (const worker of this.#workers) if (worker.getState() === 'RUNNING') worker.shutdown();
    await Promise.all(this.#runs);
    await this.#connection?.close();
  }

  #activities() {
    const world = this.#world;
    const activities: PodActivities = {
      holdPod: async ({ holdId }) => {
        await this.#do('holdPod', { holdId }, 'start');
        const context = Context.current();
        const { workflowId, runId } = context.info.workflowExecution!;
        const pod = { holdId, queue: this.queue, host: this.host, gpu: 'cpu', vramMiB: null };
        await context.client.workflow.getHandle(workflowId, runId).signal('podHeld', pod);
        const timer = setInterval(() => {
          if (!this.#dead) context.heartbeat();
        }, 100);
        try {
          await context.cancelled;
        } catch (error) {
          if (this.#dead) await world.hang();
          world.log.push(`holdPod@${this.host} released`);
          throw error;
        } finally {
          clearInterval(timer);
        }
      },
      download: async (input) => {
        await this.#do('download', input, input.resumeFrom === null ? 'from 0' : `from ${input.resumeFrom.epoch}`);
        return {
          jobDirectory: '/pod/job',
          // Of several sizes, so that some batches are short.
          imageCount: 24,
          stepsPerEpoch: 12,
          captionCount: 12,
          doubts: ['3.png is of nearly one colour'],
          checkpointFile: input.resumeFrom === null ? null : `/pod/epoch-${input.resumeFrom.epoch}.safetensors`,
          fingerprint: 'f',
          config: world.config,
        };
      },
      trainEpochChunk: async (input) => {
        await this.#do('trainEpochChunk', input, `${input.fromEpoch}-${input.untilEpoch}`);
        return chunkResult(input, world.validationLossAt);
      },
      checkpoint: async (input) => {
        await this.#do('checkpoint', input, `${input.epoch}`);
        const { epoch, step, fingerprint, epochLosses, validationLosses, previewFile } = input;
        const preview = typeof previewFile === 'string' ? { previewKey: `bucket${previewFile}` } : {};
        const ref = { manifestKey: `manifest-${epoch}`, epoch, step, fingerprint, ...preview };
        world.manifests.set(epoch, { ...ref, losses: epochLosses, ...(validationLosses && { validationLosses }) });
        return { checkpoint: ref, sizeBytes: 1, uploadMs: 1 };
      },
      upload: async (input) => {
        await this.#do('upload', input, input.checkpointFile);
        return { stagingPrefix: `staging/${input.holdId}`, objects: [] };
      },
    };
    return activities;
  }

  async #do(name: keyof PodActivities, input: unknown, what: string): Promise<void> {
    if (this.#dead) await this.#world.hang();
    const context = Context.current();
    const timer = setInterval(() => {
      if (!this.#dead) context.heartbeat();
    }, 100);
    try {
      await Promise.race([this.#world.enter(name, this.host, input, what), context.cancelled]);
    } catch (error) {
      if (this.#dead) await this.#world.hang();
      this.#world.log.push(
        `${name}@${this.host} ${what} ${context.cancellationSignal.aborted ? 'cancelled' : 'failed'}`,
      );
      throw error;
    } finally {
      clearInterval(timer);
    }
    if (this.#dead) await this.#world.hang();
    this.#world.log.push(`${name}@${this.host} ${what} done`);
  }
}
