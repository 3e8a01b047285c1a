import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { overlay } from '../../../common/config-source.ts';
import type { Role } from '../../../common/config.ts';
import { TestService } from '../../integration/support/service.ts';
import type { JobMessage } from '../../integration/support/service.ts';
import type { Launch, WorkerProcess } from '../../integration/support/worker-process.ts';
import { Clock, buildClockShift } from './clock.ts';
import { openLane, originOf } from './lane.ts';
import type { Lane } from './lane.ts';
import { Link } from './link.ts';
import { copyOfOtherVersion } from './other-version.ts';
import { parentOf, resume } from './processes.ts';
import { S3Proxy } from './s3-proxy.ts';
import { AMQP_HEARTBEAT_S, EPOCHS, OVERRIDES } from './settings.ts';
import { canMount, onSmallDisk } from './small-disk.ts';

/** A service process with links of its own. */
export interface LinkedProcess {
  worker: WorkerProcess;
  clock: Clock;
  /** Its work directory: a small disk of its own where the machine allows that. */
  disk: string;
  temporal: Link;
  s3: Link;
  amqp: Link;
  /** By this the store knows it. */
  s3Entrance: string;
}

/** A pod worker. */
export interface Pod extends LinkedProcess {
  /** It is held still by a test: it takes no job. */
  isFrozen: boolean;
}

/** A control worker or bridge. */
export interface Helper extends LinkedProcess {
  role: 'control' | 'bridge';
}

/** How many of everything. */
export interface WorldSize {
  /** Cases at the same time; each has a backend of its own. */
  lanes: number;
  pods: number;
  /** Of each job; default: {@link EPOCHS}. */
  epochs?: number;
  /** What differs from `temporal.yaml`; default: time limits are scaled down. */
  overrides?: object;
}

/** The real parts, and around them service processes that can be broken one by one: used for many cases. */
export class World {
  readonly service: TestService;
  readonly lanes: readonly Lane[];
  readonly token: string;
  readonly s3: S3Proxy;
  readonly pods: Pod[] = [];
  readonly helpers: Helper[] = [];
  /** All that were ever started. */
  readonly #processes: LinkedProcess[] = [];
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

  private constructor(parts: { service: TestService; lanes: Lane[]; token: string; s3: S3Proxy; size: WorldSize }) {
    this.service = parts.service;
    this.lanes = parts.lanes;
    this.token = parts.token;
    this.s3 = parts.s3;
    this.#size = parts.size;
    this.#points = path.join(this.service.directory, 'fault-points');
    mkdirSync(this.#points);
    this.#clockShift = buildClockShift(this.service.directory);
  }

  static async start(size: WorldSize): Promise<World> {
    const token = randomBytes(24).toString('hex');
    const lanes = await Promise.all(Array.from({ length: size.lanes }, () => openLane(token)));
    const allowedOrigins = lanes.map(originOf);
    const overrides = overlay(size.overrides ?? OVERRIDES, { backend: { allowedOrigins } }) as object;
    const service = await TestService.start({ token, overrides });
    const s3 = new S3Proxy(service.stack.s3.endpoint);
    const world = new World({ service, lanes, token, s3, size });
    await Promise.all([world.startHelper('control'), world.startHelper('bridge'), world.fillPods()]);
    return world;
  }

  /** What `brushwork train` makes of the same pictures: computed once. */
  reference(): Promise<Record<string, Buffer>> {
    this.#reference ??= this.service.trainByHand(this.#epochs);
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
    const helper = { ...(await this.startProcess([role], {}, launch)), role };
    this.helpers.push(helper);
    return helper;
  }

  /** Starts a pod beside the others. */
  async startPod(launch: Launch = {}): Promise<Pod> {
    const pod = { ...(await this.startProcess(['pod'], {}, launch)), isFrozen: false };
    this.pods.push(pod);
    return pod;
  }

  /** Starts a process that neither {@link fillPods} nor the faults of helpers know of. */
  async startProcess(
    roles: readonly Role[],
    env: Record<string, string> = {},
    launch: Launch = {},
  ): Promise<LinkedProcess> {
    const links = await this.#links();
    const clock = new Clock(this.#clockShift, path.join(this.service.directory, `clock-${this.#count++}`));
    const disk = path.join(this.service.directory, `disk-${this.#count++}`);
    mkdirSync(disk);
    const before = this.#mounts && roles.includes('pod') ? onSmallDisk(disk) : [];
    const own = {
      ...clock.env,
      TEMPORAL_ADDRESS: links.temporal.address,
      AWS_ENDPOINT_URL: `http://${links.s3.address}`,
      RABBITMQ_URL: `${this.#amqpUrl(links.amqp)}?heartbeat=${AMQP_HEARTBEAT_S}`,
      BRUSHWORK_FAULT_POINTS: this.#points,
      BRUSHWORK_WORK_DIRECTORY: disk,
      ...env,
    };
    const worker = await this.service.startWorker(roles, own, { before, ...launch });
    const linked = { worker, clock, disk, ...links };
    this.workers.push(worker);
    this.#processes.push(linked);
    return linked;
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
    if (!existsSync(file)) throw new Error(`Nobody is held at ${point}.`);
    writeFileSync(file, `block ${durationMs}`);
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

  laneOf(lane: number): Lane {
    const found = this.lanes[lane];
    if (found === undefined) throw new Error(`There is no lane ${lane}.`);
    return found;
  }

  /** A job for the backend of a lane. */
  job(lane: number, epochs = this.#epochs): JobMessage {
    return { ...this.service.job(epochs), backendOrigin: originOf(this.laneOf(lane)) };
  }

  async stop(): Promise<void> {
    this.#isClosing = true;
    await this.#filling?.catch(() => undefined);
    for (const { worker } of this.#processes) if (worker.isRunning) resume(worker.pid);
    await this.service.stop();
    const links = this.#processes.flatMap(({ temporal, s3, amqp }) => [temporal, s3, amqp]);
    await Promise.all([...links, this.s3, ...this.lanes.map(({ link }) => link)].map((link) => link.close()));
    await Promise.all(this.lanes.map(({ backend }) => backend.stop()));
  }

  async #fillPods(): Promise<void> {
    for (;;) {
      for (const pod of this.pods.filter(({ worker }) => !worker.isRunning)) {
        this.pods.splice(this.pods.indexOf(pod), 1);
        await Promise.all([pod.temporal.close(), pod.s3.close(), pod.amqp.close()]);
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

  get #epochs(): number {
    return this.#size.epochs ?? EPOCHS;
  }

  #amqpUrl({ address }: Link): string {
    const url = new URL(this.service.stack.amqpUrl);
    url.host = address;
    return url.href;
  }
}
