import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, Connection, type WorkflowHandle } from '@temporalio/client';
import { IllegalStateError } from '@temporalio/common';
import { DefaultLogger, NativeConnection, Runtime, Worker, bundleWorkflowCode } from '@temporalio/worker';
import type { WorkflowBundle } from '@temporalio/worker';
import { picturesQueue } from '../../../common/pictures-queue.ts';
import type {
  ActivityLimits,
  RefusalInput,
  TrainPhase,
  TrainStatus,
  TrainStyleInput,
  TrainStyleResult,
} from '../../../common/types.ts';
import { startStack } from '../../../scripts/stack/stack.ts';
import { FakePod } from './fake-pod.ts';
import { World, until } from './world.ts';

/** Temporal server, connections to it, workflow bundle: shared by the tests of a `describe`. */
export interface Harness {
  temporalAddress: string;
  /** Of the control workers. */
  connection: NativeConnection;
  client: Client;
  bundle: WorkflowBundle;
  stop: () => Promise<void>;
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
  quietRuntime();
  const directory = mkdtempSync(join(tmpdir(), 'brushwork-workflow-'));
  const [stack, workflowBundle] = await Promise.all([startStack({ directory, parts: ['temporal'] }), bundle()]);
  const { temporalAddress } = stack;
  const [connection, clientConnection] = await Promise.all([
    NativeConnection.connect({ address: temporalAddress }),
    Connection.connect({ address: temporalAddress }),
  ]);
  const stop = async () => {
    await Promise.all([connection.close(), clientConnection.close()]);
    await stack.stop();
    rmSync(directory, { recursive: true, force: true });
  };
  const client = new Client({ connection: clientConnection });
  return { temporalAddress, connection, client, bundle: workflowBundle, stop };
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
  readonly #control: { worker: Worker; run: Promise<void> }[] = [];

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
      expectedEpochs: 30,
      webhookOrigin: 'http://backend.invalid',
      settings: {
        podsQueue: this.podsQueue,
        chunkEpochs: 10,
        podLossBudget: 3,
        applicationAttempts: 3,
        searchAttributes: true,
        limits: {
          inspectPictures: limits({ scheduleToStartMs: null }),
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
    return this.#start('trainStyle', input);
  }

  async startRefusal(input: RefusalInput): Promise<WorkflowHandle> {
    return this.#start('tellRefusal', input);
  }

  async #start(workflowType: string, input: object): Promise<WorkflowHandle> {
    if (this.#control.length === 0) {
      const { connection, bundle } = this.#harness;
      const common = { connection, shutdownForceTime: 2000 };
      const workers = await Promise.all([
        Worker.create({
          ...common,
          taskQueue: this.controlQueue,
          workflowBundle: bundle,
          activities: this.world.control(),
        }),
        Worker.create({
          ...common,
          taskQueue: picturesQueue(this.controlQueue),
          activities: this.world.pictures(),
          maxHeartbeatThrottleInterval: 100,
        }),
      ]);
      this.#control.push(...workers.map((worker) => ({ worker, run: worker.run() })));
    }
    return this.#harness.client.workflow.start(workflowType, {
      taskQueue: this.controlQueue,
      workflowId: `${workflowType}-${randomUUID()}`,
      args: [input],
    });
  }

  get client(): Client {
    return this.#harness.client;
  }

  async addPod(host: string): Promise<FakePod> {
    const pod = await new FakePod(this.world, host).start(this.#harness.temporalAddress, this.podsQueue);
    this.#pods.push(pod);
    return pod;
  }

  async close(): Promise<void> {
    this.world.end();
    for (const { worker } of this.#control) worker.shutdown();
    await Promise.all(this.#control.map(({ run }) => run));
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
  after(() => harness.stop());
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
