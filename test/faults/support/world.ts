import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { overlay } from '../../../common/config-source.ts';
import { startBackend } from '../../../scripts/stack/backend.ts';
import type { Backend } from '../../../scripts/stack/backend.ts';
import { TestService } from '../../integration/support/service.ts';
import type { JobMessage } from '../../integration/support/service.ts';
import type { Launch, WorkerProcess } from '../../integration/support/worker-process.ts';
import { Clock, buildClockShift } from './clock.ts';
import { Link } from './link.ts';
import { copyOfOtherVersion } from './other-version.ts';
import { parentOf, resume } from './processes.ts';
import { S3Proxy } from './s3-proxy.ts';
import { EPOCHS, OVERRIDES } from './settings.ts';
import { canMount, onSmallDisk } from './small-disk.ts';

/** A pod worker with links of its own. */
export interface Pod {
  worker: WorkerProcess;
  clock: Clock;
  /** Its work directory: a small disk of its own where the machine allows that. */
  disk: string;
  temporal: Link;
  s3: Link;
  /** By this the store knows it. */
  s3Entrance: string;
  /** It is held still by a test: it takes no job. */
  isFrozen: boolean;
}

/** A control worker or bridge with links of its own. */
export interface Helper {
  role: 'control' | 'bridge';
  worker: WorkerProcess;
  clock: Clock;
  temporal: Link;
  s3: Link;
  amqp: Link;
  s3Entrance: string;
}

/** How many of everything. */
export interface WorldSize {
  /** Cases at the same time; each has a backend of its own. */
  lanes: number;
  pods: number;
  /** What differs from `temporal.yaml`; default: time limits are scaled down. */
  overrides?: object;
}

/** The real parts, and around them service processes that can be broken one by one: used for many cases. */
export class World {
  readonly service: TestService;
  readonly backends: Backend[];
  readonly token: string;
  readonly s3: S3Proxy;
  readonly pods: Pod[] = [];
  readonly helpers: Helper[] = [];
  readonly #size: WorldSize;
  readonly #points: string;
  readonly #clockShift: string;
  readonly #mounts = canMount();
  #count = 0;
  /** `cli/main.ts` of another version; see {@link World.otherVersion}. */
  #otherVersion: string | null = null;
  /** Every process that ever ran, for its log. */
  readonly workers: WorkerProcess[] = [];
  #reference: Promise<Record<string, Buffer>> | null = null;
  #filling: Promise<void> | null = null;
  #isClosing = false;

  private constructor(parts: {
    service: TestService;
    backends: Backend[];
    token: string;
    s3: S3Proxy;
    size: WorldSize;
  }) {
    this.service = parts.service;
    this.backends = parts.backends;
    this.token = parts.token;
    this.s3 = parts.s3;
    this.#size = parts.size;
    this.#points = path.join(this.service.directory, 'fault-points');
    mkdirSync(this.#points);
    this.#clockShift = buildClockShift(this.service.directory);
  }

  static async start(size: WorldSize): Promise<World> {
    const token = randomBytes(24).toString('hex');
    const backends = await Promise.all(Array.from({ length: size.lanes }, () => startBackend({ token })));
    const allowedOrigins = backends.map(({ origin }) => origin);
    const overrides = overlay(size.overrides ?? OVERRIDES, { backend: { allowedOrigins } }) as object;
    const service = await TestService.start({ token, overrides });
    const s3 = new S3Proxy(service.stack.s3.endpoint);
    const world = new World({ service, backends, token, s3, size });
    await Promise.all([world.startHelper('control'), world.startHelper('bridge'), world.fillPods()]);
    return world;
  }

  /** What `brushwork train` makes of the same pictures: computed once. */
  reference(): Promise<Record<string, Buffer>> {
    this.#reference ??= this.service.trainByHand(EPOCHS);
    return this.#reference;
  }

  /** Starts pods until there are enough that can take a job. */
  fillPods(): Promise<void> {
    this.#filling ??= this.#fillPods().finally(() => {
      this.#filling = null;
    });
    return this.#filling;
  }

  async startHelper(role: Helper['role'], launch: Launch = {}): Promise<Helper> {
    const links = await this.#links();
    const clock = this.#clock();
    const worker = await this.#startWorker([role], { ...links, clock }, {}, launch);
    const helper = { role, worker, clock, ...links };
    this.helpers.push(helper);
    return helper;
  }

  /** Starts a pod beside the others. */
  async startPod(launch: Launch = {}): Promise<Pod> {
    const { amqp, ...links } = await this.#links();
    await amqp.close();
    const clock = this.#clock();
    const disk = path.join(this.service.directory, `disk-${this.#count++}`);
    mkdirSync(disk);
    const before = this.#mounts ? onSmallDisk(disk) : [];
    const worker = await this.#startWorker(
      ['pod'],
      { ...links, clock },
      { BRUSHWORK_WORK_DIRECTORY: disk },
      { before, ...launch },
    );
    const pod = { worker, clock, disk, ...links, isFrozen: false };
    this.pods.push(pod);
    return pod;
  }

  /** The program as another version; made at the first call. */
  otherVersion(): Launch {
    this.#otherVersion ??= copyOfOtherVersion(path.join(this.service.directory, 'other-version'));
    return { program: this.#otherVersion };
  }

  /** The pod that runs in, or is the parent of, this process. */
  podWithProcess(pid: number): Pod | undefined {
    return this.pods.find(({ worker }) => worker.pid === pid || worker.pid === parentOf(pid));
  }

  /** Running helpers of a role. */
  helpersOf(role: Helper['role']): Helper[] {
    return this.helpers.filter((helper) => helper.role === role && helper.worker.isRunning);
  }

  /** Arms a point: whoever reaches it for this job is held there. */
  arm(point: string, taskId: string): void {
    writeFileSync(path.join(this.#points, `${point}.${taskId}`), '');
  }

  disarm(taskId: string): void {
    for (const name of readdirSync(this.#points)) {
      if (name.includes(`.${taskId}`)) rmSync(path.join(this.#points, name), { force: true });
    }
  }

  /** The process that is held at an armed point, or null while none has come there. */
  reachedBy(point: string, taskId: string): number | null {
    const prefix = `${point}.${taskId}.`;
    const name = readdirSync(this.#points).find((entry) => entry.startsWith(prefix));
    return name === undefined ? null : Number(name.slice(prefix.length));
  }

  release(point: string, taskId: string, pid: number): void {
    rmSync(path.join(this.#points, `${point}.${taskId}.${pid}`), { force: true });
  }

  /** Blocks the event loop of a process that is held. */
  block(point: string, taskId: string, pid: number, durationMs: number): void {
    const file = path.join(this.#points, `${point}.${taskId}.${pid}`);
    if (existsSync(file)) writeFileSync(file, `block ${durationMs}`);
  }

  /** Runs `tctl` against the stack's server. */
  async tctl(...words: string[]): Promise<string> {
    const { stack } = this.service;
    const global = ['--address', stack.temporalAddress, '--namespace', 'default'];
    const { stdout } = await promisify(execFile)(stack.tctlPath, [...global, ...words]);
    return stdout;
  }

  /** Runs `temporal` against the stack's server. */
  async temporal(...words: string[]): Promise<string> {
    const { stack } = this.service;
    const global = ['--address', stack.temporalAddress, '--namespace', 'default'];
    const { stdout } = await promisify(execFile)(stack.temporalCliPath, [...words, ...global]);
    return stdout;
  }

  /** A job for the backend of a lane. */
  job(lane: number, epochs = EPOCHS): JobMessage {
    const backendOrigin = this.backends[lane]?.origin;
    if (backendOrigin === undefined) throw new Error(`There is no lane ${lane}.`);
    return { ...this.service.job(epochs), backendOrigin };
  }

  async stop(): Promise<void> {
    this.#isClosing = true;
    await this.#filling?.catch(() => undefined);
    for (const { worker } of [...this.pods, ...this.helpers]) resume(worker.pid);
    await this.service.stop();
    const links = [...this.pods, ...this.helpers].flatMap((process) => [process.temporal, process.s3]);
    await Promise.all([...links, ...this.helpers.map(({ amqp }) => amqp), this.s3].map((link) => link.close()));
    await Promise.all(this.backends.map((backend) => backend.stop()));
  }

  async #fillPods(): Promise<void> {
    for (;;) {
      for (const pod of this.pods.filter(({ worker }) => !worker.isRunning)) {
        this.pods.splice(this.pods.indexOf(pod), 1);
        await Promise.all([pod.temporal.close(), pod.s3.close()]);
      }
      const missing = this.#size.pods - this.pods.filter(({ isFrozen }) => !isFrozen).length;
      if (missing <= 0 || this.#isClosing) return;
      try {
        await this.startPod();
      } catch (error) {
        // A part that it needs is down just now.
        if (this.#isClosing) return;
        await sleep(500);
      }
    }
  }

  async #links(): Promise<{ temporal: Link; s3: Link; amqp: Link; s3Entrance: string }> {
    const { stack } = this.service;
    const s3Entrance = await this.s3.enter();
    const [temporal, s3, amqp] = await Promise.all([
      Link.open(stack.temporalAddress),
      Link.open(s3Entrance),
      Link.open(new URL(stack.amqpUrl).host),
    ]);
    return { temporal, s3, amqp, s3Entrance };
  }

  #clock(): Clock {
    return new Clock(this.#clockShift, path.join(this.service.directory, `clock-${this.#count++}`));
  }

  async #startWorker(
    roles: string[],
    links: { temporal: Link; s3: Link; clock: Clock; amqp?: Link },
    env: Record<string, string>,
    launch: Launch,
  ): Promise<WorkerProcess> {
    const own = {
      ...{ ...links.clock.env, ...env },
      TEMPORAL_ADDRESS: links.temporal.address,
      AWS_ENDPOINT_URL: `http://${links.s3.address}`,
      BRUSHWORK_FAULT_POINTS: this.#points,
      ...(links.amqp === undefined ? {} : { RABBITMQ_PORT: links.amqp.address.split(':')[1] ?? '' }),
    };
    const worker = await this.service.startWorker(roles, own, launch);
    this.workers.push(worker);
    return worker;
  }
}
