import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import type { Client, WorkflowHandle } from '@temporalio/client';
import { IllegalStateError } from '@temporalio/common';
import { TestWorkflowEnvironment } from '@temporalio/testing';
import { Runtime, DefaultLogger, Worker, bundleWorkflowCode } from '@temporalio/worker';
import type { WorkflowBundle } from '@temporalio/worker';
import type {
  ActivityLimits,
  TrainPhase,
  TrainStatus,
  TrainStyleInput,
  TrainStyleResult,
} from '../../../common/types.ts';
import { gpuHostKey, trainEpochKey, trainErrorCodeKey, trainPhaseKey } from '../../../workflows/search-attributes.ts';
import { temporalPath } from '../../../scripts/setup/temporal.mjs';
import { FakePod } from './fake-pod.ts';
import { World, until } from './world.ts';

/** Dev server, workflow bundle: shared by the tests of a file. */
export interface Harness {
  env: TestWorkflowEnvironment;
  bundle: WorkflowBundle;
}

const ROOT = join(import.meta.dirname, '../../..');

/** Lets the SDK log errors only. The runtime ends with its last worker, so each file may have to install it again. */
export function quietRuntime(): void {
  try {
    const telemetryOptions = { logging: { filter: { core: 'ERROR', other: 'ERROR' } } } as const;
    Runtime.install({ logger: new DefaultLogger('ERROR'), workerHeartbeatInterval: 0, telemetryOptions });
  } catch (error) {
    if (!(error instanceof IllegalStateError)) throw error;
  }
}

/** The workflow code as a worker runs it. */
export async function bundle(): Promise<WorkflowBundle> {
  return bundleWorkflowCode({
    workflowsPath: join(ROOT, 'workflows/index.ts'),
    logger: new DefaultLogger('ERROR'),
  });
}

export async function startHarness(): Promise<Harness> {
  const path = process.env['TEMPORAL_CLI_PATH'] ?? temporalPath();
  quietRuntime();
  const [env, workflowBundle] = await Promise.all([
    TestWorkflowEnvironment.createLocal({
      server: {
        executable: { type: 'existing-path', path },
        searchAttributes: [trainPhaseKey, trainEpochKey, gpuHostKey, trainErrorCodeKey],
      },
    }),
    bundle(),
  ]);
  return { env, bundle: workflowBundle };
}

function limits(overrides: Partial<ActivityLimits> = {}, maximumAttempts: number | null = 1): ActivityLimits {
  return {
    startToCloseMs: 60_000,
    heartbeatMs: 3_000,
    scheduleToStartMs: 20_000,
    scheduleToCloseMs: null,
    retry: { initialIntervalMs: 100, backoffCoefficient: 2, maximumIntervalMs: 1000, maximumAttempts },
    ...overrides,
  };
}

/** One test's world: a control worker, its pods, and the job it runs. */
export class Scene {
  readonly world = new World();
  readonly controlQueue = `control-${randomUUID()}`;
  readonly podsQueue = `pods-${randomUUID()}`;
  readonly #harness: Harness;
  readonly #pods: FakePod[] = [];
  #control: { worker: Worker; run: Promise<void> } | null = null;

  constructor(harness: Harness) {
    this.#harness = harness;
  }

  input(overrides: Partial<TrainStyleInput> = {}): TrainStyleInput {
    const control = limits({ heartbeatMs: null, scheduleToStartMs: null }, 3);
    return {
      styleId: 42,
      taskId: randomUUID(),
      images: Array.from({ length: 12 }, (_, i) => `s3://pictures/${i}.png`),
      tags: [],
      parameters: { epochs: null, learningRate: null, batchSize: null },
      webhookOrigin: 'http://backend.invalid',
      settings: {
        podsQueue: this.podsQueue,
        chunkEpochs: 10,
        podLossBudget: 3,
        applicationAttempts: 3,
        searchAttributes: true,
        limits: {
          holdPod: limits({ scheduleToStartMs: null }),
          findResumePoint: control,
          download: limits(),
          trainEpochChunk: limits(),
          checkpoint: limits(),
          upload: limits(),
          promote: control,
          notify: { ...control, scheduleToCloseMs: 3_000, retry: { ...control.retry, maximumAttempts: null } },
          notifyProgress: { ...control, retry: { ...control.retry, maximumAttempts: 1 } },
        },
      },
      ...overrides,
    };
  }

  async start(input = this.input()): Promise<WorkflowHandle> {
    if (this.#control === null) {
      const { env, bundle } = this.#harness;
      const worker = await Worker.create({
        connection: env.nativeConnection,
        taskQueue: this.controlQueue,
        workflowBundle: bundle,
        activities: this.world.control(),
        shutdownForceTime: 2000,
      });
      this.#control = { worker, run: worker.run() };
    }
    return this.#harness.env.client.workflow.start('trainStyle', {
      taskQueue: this.controlQueue,
      workflowId: `train-style-${randomUUID()}`,
      args: [input],
    });
  }

  get client(): Client {
    return this.#harness.env.client;
  }

  async addPod(host: string): Promise<FakePod> {
    const pod = await new FakePod(this.world, host).start(this.#harness.env, this.podsQueue);
    this.#pods.push(pod);
    return pod;
  }

  async close(): Promise<void> {
    this.world.end();
    if (this.#control !== null) {
      this.#control.worker.shutdown();
      await this.#control.run;
    }
    await Promise.all(this.#pods.map((pod) => pod.close()));
  }
}

/** Starts a harness for the tests of a `describe`, and hands a scene of its own to each of them. */
export function sceneForEachTest(assign: (scene: Scene) => void): void {
  let harness: Harness;
  let scene: Scene;

  before(async () => {
    harness = await startHarness();
  });
  after(() => harness.env.teardown());
  beforeEach(() => {
    scene = new Scene(harness);
    assign(scene);
  });
  afterEach(() => scene.close());
}

/** Waits until the job is in a phase. */
export async function inPhase(handle: WorkflowHandle, phase: TrainPhase, timeoutMs?: number): Promise<TrainStatus> {
  let status = await statusOf(handle);
  const reached = async () => {
    status = await statusOf(handle);
    return status.phase === phase;
  };
  await until(reached, `phase ${phase}, last ${JSON.stringify(status)}`, timeoutMs);
  return status;
}

export async function statusOf(handle: WorkflowHandle): Promise<TrainStatus> {
  return handle.query<TrainStatus>('status');
}

export async function resultOf(handle: WorkflowHandle): Promise<TrainStyleResult> {
  return (await handle.result()) as TrainStyleResult;
}
