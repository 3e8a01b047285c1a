import { setTimeout as sleep } from 'node:timers/promises';
import type { TrainStatus } from '../../../common/types.ts';
import type { Backend } from '../../../scripts/stack/backend.ts';
import type { JobMessage } from '../../integration/support/service.ts';
import { until } from '../../integration/support/until.ts';
import type { Moment } from '../moments.ts';
import type { HeldUpload } from './s3-proxy.ts';
import type { Pod, World } from './world.ts';

const REACH_LIMIT_MS = 150_000;
const CLOSE_LIMIT_MS = 240_000;
const SAMPLE_MS = 800;
const POLL_MS = 250;

/** Where a job is held. */
export interface Reached {
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
  readonly lane: number;
  readonly backend: Backend;
  readonly job: JobMessage;
  /** Seeded by the case. */
  readonly random: () => number;
  readonly samples: Sample[] = [];
  /** Pods that lost the job and live on, and from when on they may change nothing. */
  readonly zombies: { pod: Pod; sinceMs: number }[] = [];
  /** Those that are struck by the same fault, this one included. */
  batch: readonly Scene[] = [this];
  #closing: Closing | null = null;
  #isOver = false;
  #sampling: Promise<void> = Promise.resolve();
  #upload: HeldUpload | null = null;

  constructor(world: World, lane: number, random: () => number, job = world.job(lane)) {
    const backend = world.backends[lane];
    if (backend === undefined) throw new Error(`There is no lane ${lane}.`);
    this.world = world;
    this.lane = lane;
    this.backend = backend;
    this.job = job;
    this.random = random;
  }

  /** Sends the job's message and begins to look at its status. */
  async publish(): Promise<void> {
    await this.world.service.publish(this.job);
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
      if (next === undefined && moment.upload === undefined) return this.#heldAt(point, pid);
      this.world.release(point, taskId, pid);
    }
    const { reached, release } = this.#upload ?? {};
    await Promise.race([reached, sleep(REACH_LIMIT_MS, undefined, { ref: false })]);
    return { pid: null, release: release ?? (() => undefined), block: () => undefined };
  }

  /** The pod that holds the job, by what Temporal knows. */
  async holder(): Promise<Pod | undefined> {
    const { raw } = await this.handle.describe();
    const hold = raw.pendingActivities?.find(({ activityType }) => activityType?.name === 'holdPod');
    const pid = Number(hold?.lastWorkerIdentity?.split('@')[0]);
    return this.world.pods.find(({ worker }) => worker.pid === pid);
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
    return this.zombies.flatMap(({ pod, sinceMs }) => {
      const queue = pod.worker.lines.find(({ msg }) => msg === 'pod takes jobs')?.['queue'];
      const again = holds.find((hold) => hold.queue === queue && hold.atMs > sinceMs)?.atMs ?? Infinity;
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
  async closed(): Promise<Closing> {
    const what = async () => `the end of the job; last status ${JSON.stringify(this.samples.at(-1)?.status)}`;
    const text = await what();
    await until(
      async () => {
        if (await this.isClosed()) return true;
        await sleep(POLL_MS);
        return false;
      },
      text,
      CLOSE_LIMIT_MS,
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
    this.#upload?.release();
    this.world.disarm(this.job.taskId);
    await this.#sampling;
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

  #heldAt(point: string, pid: number): Reached {
    const { taskId } = this.job;
    return {
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
