import { setTimeout as sleep } from 'node:timers/promises';
import type { Role } from '../../../common/config.ts';
import type { TrainStatus } from '../../../common/types.ts';
import type { Backend } from '../../../scripts/stack/backend.ts';
import { JOB_QUEUE } from '../../integration/support/service.ts';
import type { JobMessage } from '../../integration/support/service.ts';
import { until } from '../../integration/support/until.ts';
import { BUCKET } from '../fault-case.ts';
import type { Moment } from '../moments.ts';
import { Announced } from './announced.ts';
import { startApart } from './apart.ts';
import type { Link } from './link.ts';
import { randomOf } from './random.ts';
import type { HeldUpload } from './s3-proxy.ts';
import type { LinkedProcess, Pod, World } from './world.ts';

const REACH_LIMIT_MS = 150_000;
const CLOSE_LIMIT_MS = 300_000;
const SAMPLE_MS = 800;
const POLL_MS = 250;

/** Where a job is held. */
export interface Reached {
  moment: Moment;
  /** The process that is held, where that is known. */
  pid: number | null;
  /** Lets it go on. */
  release: () => void;
  /** Blocks its event loop. */
  block: (durationMs: number) => void;
}

/** A status that was seen, and when. */
export interface Sample {
  atMs: number;
  status: TrainStatus;
}

/** How a workflow ended. */
export interface Closing {
  status: string;
  atMs: number;
}

/** One case while it runs: its job, its backend, what was seen of it. */
export class Scene {
  readonly world: World;
  readonly caseId: string;
  readonly backend: Backend;
  readonly backendLink: Link;
  readonly job: JobMessage;
  /** Seeded by the case. */
  readonly random: () => number;
  readonly samples: Sample[] = [];
  readonly announced: Announced;
  /** Pods that lost the job and live on: when, and from when on they may change nothing. */
  readonly #zombies: { pod: Pod; lostAtMs: number; sinceMs: number }[] = [];
  /** Those that are struck by the same fault, this one included. */
  batch: readonly Scene[] = [this];
  readonly #proofs: { miss: string; hasHit: () => boolean }[] = [];
  /** Where bridges look for the job's message. */
  #queue = JOB_QUEUE;
  #closing: Closing | null = null;
  #isOver = false;
  #sampling: Promise<void> = Promise.resolve();
  #upload: HeldUpload | null = null;
  readonly #apart: LinkedProcess[] = [];

  constructor(world: World, lane: number, caseId: string, seed: number, job = world.job(lane)) {
    const { backend, link } = world.laneOf(lane);
    this.world = world;
    this.backend = backend;
    this.backendLink = link;
    this.job = job;
    this.announced = new Announced(world.service, backend, job);
    this.caseId = caseId;
    this.random = randomOf(`${seed} ${caseId}`);
  }

  /** Starts a process that serves only this job, with settings of its own; from now on the message goes to such a bridge. */
  async startApart(roles: readonly Role[], changes: object): Promise<LinkedProcess> {
    this.#queue = `job-${this.job.styleId}`;
    const started = await startApart(this.world, roles, this.#queue, changes);
    this.#apart.push(started);
    return started;
  }

  /** Sends the job's message and begins to look at its status. */
  async publish(): Promise<void> {
    await this.world.service.publish(this.job, this.#queue);
    this.#sampling = this.#sample();
  }

  /** Makes sure that the job will be held; to be called before {@link publish}. */
  arm(moment: Moment): void {
    const [first] = moment.isResumed === true ? (['checkpoint:manifest'] as const) : moment.points;
    if (first !== undefined) this.world.arm(first, this.job.taskId);
  }

  /** Waits until the job is at the moment. */
  async reach(moment: Moment): Promise<Reached> {
    const { taskId, styleId } = this.job;
    if (moment.isResumed === true) {
      const pid = await this.#reachPoint('checkpoint:manifest');
      const pod = this.world.podWithProcess(pid) ?? (await this.holder());
      this.world.arm(moment.points[0] ?? '', taskId);
      await pod?.worker.kill();
      void this.world.fillPods();
    }
    for (const [index, point] of moment.points.entries()) {
      const pid = await this.#reachPoint(point);
      const next = moment.points[index + 1];
      if (next !== undefined) this.world.arm(next, taskId);
      else if (moment.upload !== undefined) {
        const key = moment.upload === 'data' ? 'checkpoints' : 'staging';
        this.#upload = this.world.s3.hold(new RegExp(`/${key}/style_${styleId}/`));
      }
      if (next === undefined && moment.upload === undefined) return this.#heldAt(moment, point, pid);
      this.world.release(point, taskId, pid);
    }
    const upload = this.#upload;
    if (upload === null) throw new Error(`The moment ${moment.name} has neither point nor upload.`);
    await until(() => upload.isReached, `an upload for ${moment.name}`, REACH_LIMIT_MS);
    return { moment, pid: null, release: upload.release, block: () => undefined };
  }

  /**
   * Says how one knows that a fault has hit.
   *
   * @param miss - what is wrong where it has not
   * @param hasHit - asked after the end of the job
   */
  mustHit(miss: string, hasHit: () => boolean): void {
    this.#proofs.push({ miss, hasHit });
  }

  /** Faults that have hit nothing. */
  misses(): string[] {
    return this.#proofs.filter(({ hasHit }) => !hasHit()).map(({ miss }) => `the fault could not be done: ${miss}`);
  }

  /** Gives the job copies of the pictures, and of their captions, that only it reads; before {@link publish}. */
  async takeOwnPictures(): Promise<void> {
    const { store } = this.world.service;
    const prefix = `pictures-of-${this.job.styleId}/`;
    const own = (key: string) => key.replace('pictures/', prefix);
    for (const key of await store.list(BUCKET, 'pictures/'))
      await store.copy({ bucket: BUCKET, key }, { bucket: BUCKET, key: own(key) });
    this.job.images = this.job.images.map(own);
  }

  /** The pod that holds the job, by what Temporal knows. */
  async holder(): Promise<Pod | undefined> {
    const { raw } = await this.handle.describe();
    const hold = raw.pendingActivities?.find(({ activityType }) => activityType?.name === 'holdPod');
    const pid = Number(hold?.lastWorkerIdentity?.split('@')[0]);
    return this.world.pods.find(({ worker }) => worker.pid === pid);
  }

  /** A pod loses the job now and lives on: after a while it may change nothing any more. */
  loses(pod: Pod, afterMs: number): void {
    const lostAtMs = Date.now();
    this.#zombies.push({ pod, lostAtMs, sinceMs: lostAtMs + afterMs });
  }

  /** What Temporal waits for. */
  async pendingActivities(): Promise<{ id: string; name: string }[]> {
    const { raw } = await this.handle.describe();
    return (raw.pendingActivities ?? []).map(({ activityId, activityType }) => ({
      id: activityId ?? '',
      name: activityType?.name ?? '',
    }));
  }

  get handle() {
    return this.world.service.handleOf(this.job);
  }

  /**
   * What pods without the job have written for it.
   *
   * @param holds - of the job: it may be given to the same pod again
   */
  zombieWrites(holds: readonly { atMs: number; queue: string }[]): string[] {
    return this.#zombies.flatMap(({ pod, lostAtMs, sinceMs }) => {
      const queue = pod.worker.lines.find(({ msg }) => msg === 'pod takes jobs')?.['queue'];
      const again = holds.find((hold) => hold.queue === queue && hold.atMs > lostAtMs)?.atMs ?? Infinity;
      return this.world.s3.writes
        .filter(({ entrance, path }) => entrance === pod.s3Entrance && this.#isMine(path))
        .filter(({ atMs }) => atMs >= sinceMs && atMs < again)
        .map(({ atMs, method, path }) => `${method} ${path} ${atMs - sinceMs} ms late`);
    });
  }

  /** First steps of the job's chunks, as its pods have logged them. */
  firstSteps(): { atMs: number; epoch: number }[] {
    return this.world.workers
      .flatMap(({ lines }) => lines)
      .filter(({ msg, task }) => msg === 'first step of a chunk' && task === this.job.taskId)
      .map(({ atMs, epoch }) => ({ atMs, epoch: Number(epoch) }));
  }

  /** Null where nobody answers. */
  async status(): Promise<TrainStatus | null> {
    return this.world.service.statusOf(this.job).catch(() => null);
  }

  /** True once the newest run has ended. */
  async isClosed(): Promise<boolean> {
    try {
      const { status } = await this.handle.describe();
      if (status.name === 'RUNNING') return false;
      this.#closing ??= { status: status.name, atMs: Date.now() };
      return true;
    } catch {
      return false;
    }
  }

  /** Waits until the newest run has ended. */
  async closed(limitMs = CLOSE_LIMIT_MS): Promise<Closing> {
    const what = async () => `the end of the job; last status ${JSON.stringify(this.samples.at(-1)?.status)}`;
    const text = await what();
    await until(
      async () => {
        if (await this.isClosed()) return true;
        await sleep(POLL_MS);
        return false;
      },
      text,
      limitMs,
    );
    return this.#closing ?? { status: 'unknown', atMs: Date.now() };
  }

  /** Waits until the newest runs of all that are struck together have ended, or will not. */
  async allClosed(): Promise<void> {
    await Promise.allSettled(this.batch.map((scene) => scene.closed()));
  }

  /** A reset has made another run. */
  reopened(): void {
    this.#closing = null;
  }

  /** Ends what looks at the job. */
  async end(): Promise<void> {
    this.#isOver = true;
    this.announced.stop();
    this.#upload?.release();
    this.world.disarm(this.job.taskId);
    await this.#sampling;
    await Promise.all(this.#apart.map(({ worker }) => worker.kill()));
  }

  #isMine(path: string): boolean {
    return path.includes(`/style_${this.job.styleId}/`);
  }

  async #reachPoint(point: string): Promise<number> {
    const { taskId } = this.job;
    let pid: number | null = null;
    const reached = () => {
      pid = this.world.reachedBy(point, taskId);
      return pid !== null;
    };
    await until(reached, () => `${point}; last status ${JSON.stringify(this.samples.at(-1)?.status)}`, REACH_LIMIT_MS);
    return pid ?? 0;
  }

  #heldAt(moment: Moment, point: string, pid: number): Reached {
    const { taskId } = this.job;
    return {
      moment,
      pid,
      release: () => this.world.release(point, taskId, pid),
      block: (durationMs) => this.world.block(point, taskId, pid, durationMs),
    };
  }

  async #sample(): Promise<void> {
    while (!this.#isOver) {
      const status = await this.status();
      if (status !== null) this.samples.push({ atMs: Date.now(), status });
      await sleep(SAMPLE_MS);
    }
  }
}
