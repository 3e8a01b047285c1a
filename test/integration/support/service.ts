import { execFile } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { GetObjectCommand } from '@aws-sdk/client-s3';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import { Client, Connection } from '@temporalio/client';
import type { WorkflowHandle } from '@temporalio/client';
import { stringify } from 'yaml';
import { loadConfig } from '../../../common/config.ts';
import { overlay } from '../../../common/config-source.ts';
import type { ObjectStore } from '../../../common/object-store.ts';
import type { TrainStatus, TrainStyleResult } from '../../../common/types.ts';
import { loadAddon } from '../../../native/index.ts';
import { writeRandomBaseModel } from '../../../native/trainer/random-base-model.ts';
import { startBackend } from '../../../scripts/stack/backend.ts';
import type { Backend } from '../../../scripts/stack/backend.ts';
import { publishJob } from '../../../scripts/stack/publisher.ts';
import { s3Client } from '../../../scripts/stack/s3-server.ts';
import { startStack } from '../../../scripts/stack/stack.ts';
import type { Stack } from '../../../scripts/stack/stack.ts';
import { createObjectStore } from '../../../worker/object-store.ts';
import { PICTURE_COUNT, writePictures } from './pictures.ts';
import { until } from './until.ts';
import { WorkerProcess } from './worker-process.ts';
import type { Launch } from './worker-process.ts';

const CLI = path.join(import.meta.dirname, '../../../cli/main.ts');
const BUCKET = 'brushwork';
/** Where bridges look for messages. */
export const JOB_QUEUE = 'model_training';
/** Equal counts give equal bits; one thread leaves the other core to everything else. */
const THREADS = '1';

/** The recipe of all jobs here: small enough for seconds, with dropout so that its random stream counts too. */
export const RECIPE = { seed: 7, rank: 4, alpha: 8, dropout: 0.1, resolution: 64 };

/** What differs from `temporal.yaml`. */
const OVERRIDES = {
  training: { recipe: RECIPE, instancePrompt: 'in the style of stripes' },
  // They only take time; train-style.test.ts draws them.
  previews: { enabled: false },
  // These jobs are small, and so may be the disk here.
  pod: { minFreeDiskMiB: 64 },
  // A backend that comes back is noticed within two seconds instead of minutes.
  activities: { notify: { retry: { initialInterval: '500ms', maximumInterval: '2s' } } },
};

/** A job as its message says it. */
export interface JobMessage {
  styleId: number;
  taskId: string;
  epochs: number;
  images: string[];
  /** Default: the service's own backend. */
  backendOrigin?: string;
}

/** Real parts, pictures in the bucket, a tiny base model: what the service needs to work. */
export class TestService {
  readonly directory: string;
  readonly stack: Stack;
  readonly backend: Backend;
  readonly store: ObjectStore;
  readonly client: Client;
  readonly pictureDirectory: string;
  readonly #connection: Connection;
  readonly #env: Record<string, string>;
  readonly #workers: WorkerProcess[] = [];
  #nextStyleId = 1;

  private constructor(parts: {
    directory: string;
    stack: Stack;
    backend: Backend;
    connection: Connection;
    env: Record<string, string>;
  }) {
    this.directory = parts.directory;
    this.stack = parts.stack;
    this.backend = parts.backend;
    this.#connection = parts.connection;
    this.#env = parts.env;
    this.pictureDirectory = path.join(this.directory, 'pictures');
    const config = loadConfig({ env: parts.env, roles: ['control'] });
    if (config.storage === null) throw new Error('The role control has a store.');
    this.store = createObjectStore(config.storage);
    this.client = new Client({ connection: parts.connection });
  }

  /**
   * Starts the parts; the workers are up to the test.
   *
   * @param options - `overrides` of `temporal.yaml` beside those that all tests share, the backends' `token`
   */
  static async start(options: { overrides?: object; token?: string } = {}): Promise<TestService> {
    const directory = mkdtempSync(path.join(tmpdir(), 'brushwork-service-'));
    const { token = randomBytes(24).toString('hex') } = options;
    const [stack, backend] = await Promise.all([
      startStack({ directory: path.join(directory, 'stack'), buckets: [BUCKET] }),
      startBackend({ token }),
      writeRandomBaseModel(loadAddon(), path.join(directory, 'model'), 'tiny', 1),
    ]);
    writeFileSync(path.join(directory, 'overrides.yaml'), stringify(overlay(OVERRIDES, options.overrides)));
    const env = {
      ...stack.environment(),
      BACKEND_API_URL: backend.origin,
      INTERNAL_API_TOKEN: token,
      BASE_MODEL: path.join(directory, 'model'),
      BRUSHWORK_WORK_DIRECTORY: path.join(directory, 'work'),
      BRUSHWORK_DEVICE: 'cpu',
      BRUSHWORK_CPU_THREADS: THREADS,
      BRUSHWORK_CONFIG: path.join(directory, 'overrides.yaml'),
      LOG_LEVEL: 'info',
    };
    const connection = await Connection.connect({ address: stack.temporalAddress });
    const service = new TestService({ directory, stack, backend, connection, env });
    await service.#putPictures();
    return service;
  }

  /** Starts `brushwork worker` and waits until it takes work; `env` is laid over what connects it to the parts. */
  async startWorker(
    roles: readonly string[],
    env: Record<string, string> = {},
    launch: Launch = {},
  ): Promise<WorkerProcess> {
    const worker = new WorkerProcess(roles, { ...this.#env, ...env }, launch);
    this.#workers.push(worker);
    for (const role of roles) {
      await worker.waitForLine((line) => line.msg === 'ready' && line['role'] === role, `role ${role}`);
    }
    return worker;
  }

  /** A job over all pictures, of a style and task of its own. */
  job(epochs: number): JobMessage {
    const names = readdirSync(this.pictureDirectory).filter((name) => !name.endsWith('.txt'));
    const styleId = this.#nextStyleId++;
    return { styleId, taskId: randomUUID(), epochs, images: names.map((name) => `s3://${BUCKET}/pictures/${name}`) };
  }

  async publish(job: JobMessage, queue = JOB_QUEUE): Promise<void> {
    await publishJob(this.stack.amqpUrl, queue, {
      task_id: job.taskId,
      type: 'model_training',
      data: { style_id: job.styleId, images: job.images, parameters: { epochs: job.epochs } },
      webhook_url: `${job.backendOrigin ?? this.backend.origin}/api/webhooks/training/${job.styleId}/status`,
    });
  }

  handleOf(job: JobMessage): WorkflowHandle {
    return this.client.workflow.getHandle(`train-style-${job.styleId}`);
  }

  async statusOf(job: JobMessage): Promise<TrainStatus> {
    return this.handleOf(job).query<TrainStatus>('status');
  }

  async resultOf(job: JobMessage): Promise<TrainStyleResult> {
    return (await this.handleOf(job).result()) as TrainStyleResult;
  }

  /** Waits until the job's status says so. */
  async waitForStatus(
    job: JobMessage,
    matches: (status: TrainStatus) => boolean,
    what: string,
    timeoutMs?: number,
  ): Promise<TrainStatus> {
    let last: TrainStatus | null = null;
    const reached = async () => {
      last = await this.statusOf(job).catch(() => null);
      return last !== null && matches(last);
    };
    await until(reached, () => `${what}; last status ${JSON.stringify(last)}; logs:\n${this.tails()}`, timeoutMs);
    return last!;
  }

  /** Notices about one style that the backend took, other than progress. */
  finalNotices(job: JobMessage): { kind: string | null; body: Record<string, unknown> | null }[] {
    return this.backend.requests
      .filter(({ accepted, kind, body }) => accepted && kind !== 'progress' && body?.['style_id'] === job.styleId)
      .map(({ kind, body }) => ({ kind, body }));
  }

  /** The published weights, by file name below `models/style_<id>/`. */
  async weightsOf(job: JobMessage): Promise<Record<string, Buffer>> {
    const prefix = `models/style_${job.styleId}/`;
    const files: Record<string, Buffer> = {};
    for (const key of await this.store.list(BUCKET, prefix)) {
      const bytes = await this.store.getBytes({ bucket: BUCKET, key }, { maxBytes: 2 ** 28 });
      if (bytes !== null) files[key.slice(prefix.length)] = bytes;
    }
    return files;
  }

  /** What `brushwork train` makes of the same pictures, by file name. */
  async trainByHand(epochs: number): Promise<Record<string, Buffer>> {
    const output = path.join(this.directory, `by-hand-${epochs}`);
    const config = path.join(this.directory, `by-hand-${epochs}.json`);
    writeFileSync(config, JSON.stringify({ ...RECIPE, epochs }));
    const options = ['--model', path.join(this.directory, 'model'), '--images', this.pictureDirectory];
    await promisify(execFile)(process.execPath, [CLI, 'train', ...options, '--output', output, '--config', config], {
      env: { ...process.env, ...this.#env },
    });
    const files: Record<string, Buffer> = {};
    for (const name of ['lora_weights.safetensors', 'kohya.safetensors', 'peft/adapter_model.safetensors']) {
      files[name] = readFileSync(path.join(output, name));
    }
    return files;
  }

  async putObject(key: string, body: Uint8Array): Promise<string> {
    await this.store.put({ bucket: BUCKET, key }, body);
    return `s3://${BUCKET}/${key}`;
  }

  /** A presigned URL of an object, as platforms send them. */
  async presignedUrl(key: string): Promise<string> {
    const client = s3Client(this.stack.s3);
    try {
      return await getSignedUrl(client, new GetObjectCommand({ Bucket: BUCKET, Key: key }), { expiresIn: 600 });
    } finally {
      client.destroy();
    }
  }

  /** Keys of the bucket below a prefix, those with `part` in them. */
  async keys(prefix: string, part = ''): Promise<string[]> {
    return (await this.store.list(BUCKET, prefix)).filter((key) => key.includes(part));
  }

  async objectOf(key: string): Promise<Buffer> {
    const bytes = await this.store.getBytes({ bucket: BUCKET, key }, { maxBytes: 2 ** 28 });
    if (bytes === null) throw new Error(`The bucket holds no ${key}.`);
    return bytes;
  }

  /** The ends of all logs, for messages of failed tests. */
  tails(): string {
    return this.#workers.map((worker) => worker.tail()).join('\n---\n');
  }

  /** Ends everything and removes it. */
  async stop(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.kill()));
    this.store.close();
    await this.#connection.close();
    await Promise.all([this.backend.stop(), this.stack.stop()]);
    rmSync(this.directory, { recursive: true, force: true });
  }

  async #putPictures(): Promise<void> {
    const names = await writePictures(this.pictureDirectory);
    if (names.length !== PICTURE_COUNT) throw new Error('A style needs all of its pictures.');
    for (const name of readdirSync(this.pictureDirectory)) {
      const location = { bucket: BUCKET, key: `pictures/${name}` };
      await this.store.uploadFile(path.join(this.pictureDirectory, name), location);
    }
  }
}
