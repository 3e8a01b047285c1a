import { randomUUID } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import sharp from 'sharp';
import type { Info } from '@temporalio/activity';
import { WorkflowNotFoundError } from '@temporalio/client';
import type { Client } from '@temporalio/client';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import type { PodDependencies } from '../../../../activities/dependencies.ts';
import { PodFence } from '../../../../activities/pod-fence.ts';
import { PodRest } from '../../../../activities/pod-rest.ts';
import type { TrainerJob } from '../../../../common/trainer.ts';
import type { BackendClient, CompleteNotice, FailedNotice, ProgressNotice } from '../../../../common/backend-client.ts';
import { trainingConfig } from '../../../support/training-config.ts';
import { FakeTrainer } from './fake-trainer.ts';
import { MemoryStore } from './memory-store.ts';

export const CONFIG = trainingConfig({ dropout: 0, epochs: 4 });

/** A backend that takes everything. */
export class FakeBackend implements BackendClient {
  readonly notices: {
    origin: string;
    notice: ProgressNotice | CompleteNotice | FailedNotice;
    webhookId: string | null;
  }[] = [];
  /** Called for each notice; may throw. */
  onNotice: () => void = () => undefined;

  progress(origin: string, notice: ProgressNotice): Promise<void> {
    return this.#take(origin, notice, null);
  }
  complete(origin: string, notice: CompleteNotice, webhookId: string): Promise<void> {
    return this.#take(origin, notice, webhookId);
  }
  failed(origin: string, notice: FailedNotice, webhookId: string): Promise<void> {
    return this.#take(origin, notice, webhookId);
  }
  close(): Promise<void> {
    return Promise.resolve();
  }

  async #take(origin: string, notice: ProgressNotice | CompleteNotice | FailedNotice, webhookId: string | null) {
    this.notices.push({ origin, notice, webhookId });
    await Promise.resolve();
    this.onNotice();
  }
}

/**
 * A Temporal server that takes every heartbeat and knows of no training.
 *
 * @param heartbeat - answers heartbeats in another way
 * @param describe - answers what is asked about the workflow of an id
 */
export function temporalWith(
  heartbeat: () => Promise<void> = () => Promise.resolve(),
  describe: (workflowId: string) => Promise<object> = (id) =>
    Promise.reject(new WorkflowNotFoundError('none', id, undefined)),
): Client {
  return {
    activity: { heartbeat },
    workflow: { getHandle: (workflowId: string) => ({ describe: () => describe(workflowId) }) },
    withDeadline: (_deadline: number, call: () => Promise<unknown>) => call(),
    withAbortSignal: (_signal: AbortSignal, call: () => Promise<unknown>) => call(),
  } as unknown as Client;
}

/** An activity context that logs nothing that a test expects anyway. */
export function quietEnvironment(client = temporalWith(), info: Partial<Info> = {}): MockActivityEnvironment {
  const logger = new DefaultLogger('ERROR');
  const workflowExecution = { workflowId: 'train-style-7', runId: 'run' };
  return new MockActivityEnvironment({ workflowExecution, ...info }, { logger, client });
}

/** A pod made of fakes, held by one job. */
export class TestPod {
  readonly directory = mkdtempSync(path.join(tmpdir(), 'brushwork-pod-'));
  readonly store = new MemoryStore();
  readonly trainer = new FakeTrainer();
  readonly backend = new FakeBackend();
  readonly fence = new PodFence(60_000);
  readonly holdId = randomUUID();
  readonly environment = quietEnvironment();
  readonly deps: PodDependencies;

  constructor() {
    this.fence.open(this.holdId);
    this.deps = {
      pod: { host: 'here', queue: 'own-queue' },
      store: this.store,
      bucket: 'bucket',
      keepCheckpoints: 2,
      backend: this.backend,
      trainer: this.trainer,
      runtime: () => this.trainer.runtime(),
      fence: this.fence,
      rest: new PodRest(0),
      baseModel: () =>
        Promise.resolve({ directory: '/models/tiny', fingerprint: 'model-1', name: 'tiny', sideMultiplePx: 16 }),
      jobDirectory: (holdId) => path.join(this.directory, holdId),
      imageRules: { endpoint: null, fileUriRoot: null },
      recipe: {},
      instancePrompt: 'the instance prompt',
      previews: null,
      progressIntervalMs: 20,
      timing: { beatMs: 20, fenceMs: 200, stallMs: 500, loadStallMs: 1000 },
      version: '0.0.0',
    };
  }

  get jobDirectory(): string {
    return this.deps.jobDirectory(this.holdId);
  }

  get ids() {
    return { styleId: 7, taskId: 'task', holdId: this.holdId };
  }

  /** Puts pictures on the pod's disk, as `download` would have. */
  async withPictures(count: number): Promise<void> {
    const images = path.join(this.jobDirectory, 'images');
    mkdirSync(images, { recursive: true });
    for (let i = 0; i < count; i++) await sharp(await picture(i)).toFile(path.join(images, `${i}.png`));
  }

  /** A job over three pictures, as the trainer gets it. */
  async preparedJob(): Promise<TrainerJob> {
    await this.withPictures(3);
    return {
      jobId: `task/${this.holdId}`,
      baseModelDirectory: '/models/tiny',
      baseModelName: 'tiny',
      imageDirectory: path.join(this.jobDirectory, 'images'),
      fallbackCaption: 'the instance prompt',
      config: CONFIG,
      logLabels: {},
    };
  }

  close(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** A PNG that differs by `shade`. */
export async function picture(shade: number, sidePx = 256): Promise<Buffer> {
  const background = { r: shade % 256, g: 128, b: 64 };
  return sharp({ create: { width: sidePx, height: sidePx, channels: 3, background } })
    .png()
    .toBuffer();
}

/** A PNG that shows something else for each `seed`. */
export async function noise(seed: number, widthPx = 256, heightPx = 256): Promise<Buffer> {
  let state = seed + 1;
  const coarse = Buffer.from(Array.from({ length: 16 * 16 * 3 }, () => (state = (state * 48271) % 2147483647) >> 8));
  return sharp(coarse, { raw: { width: 16, height: 16, channels: 3 } })
    .resize(widthPx, heightPx, { fit: 'fill' })
    .png()
    .toBuffer();
}
