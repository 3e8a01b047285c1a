import { setTimeout as sleep } from 'node:timers/promises';
import type { Fault } from './fault-case.ts';
import { ON_POD, helperOf, podOf, trainerOf } from './strikes.ts';
import { canLimitMemory, starve } from './support/memory-limit.ts';
import { signal } from './support/processes.ts';
import type { Helper, World } from './support/world.ts';
import { canMount, clearDisk, fillDisk } from './support/small-disk.ts';

const HOUR_SECONDS = 3600;
/** What a worker may take to leave. */
const LEAVE_MS = 10_000;

const CLOCK_STEPS = { forward: HOUR_SECONDS, back: -HOUR_SECONDS };

const clocks = Object.entries(CLOCK_STEPS).flatMap(([name, seconds]): Fault[] => [
  {
    name: `pod-clock-${name}`,
    about: `the pod's wall clock jumps ${name} by an hour, until the job's end`,
    places: ON_POD,
    strike: async (scene, reached) => {
      const { clock } = await podOf(scene, reached);
      clock.shiftTo(seconds);
      reached.release();
      await scene.closed();
      clock.shiftTo(0);
    },
  },
  {
    name: `control-clock-${name}`,
    about: `the wall clocks of bridge and control worker jump ${name} by an hour, until the job's end`,
    places: ['bridge', 'control'],
    isShared: true,
    strike: async (scene, reached) => {
      const helpers = [helperOf(scene.world, 'bridge'), helperOf(scene.world, 'control')];
      for (const { clock } of helpers) clock.shiftTo(seconds);
      reached.release();
      await scene.allClosed();
      for (const { clock } of helpers) clock.shiftTo(0);
    },
  },
]);

const disk: Fault = {
  name: 'pod-disk-full',
  about: "the pod's disk is full, until the job's end",
  places: ON_POD,
  // After this it writes nothing.
  suits: ({ name }) => name !== 'upload:end',
  strike: async (scene, reached) => {
    const { worker, disk: directory } = await podOf(scene, reached);
    if (worker.pid === undefined) throw new Error('The pod has ended.');
    const lossesBefore = (await scene.status())?.podLosses ?? 0;
    fillDisk(worker.pid, directory);
    reached.release();
    await scene.closed();
    clearDisk(worker.pid, directory);
    const lost = (scene.samples.at(-1)?.status.podLosses ?? 0) - lossesBefore;
    if (lost > 1) throw new Error(`The pod took the job again with its disk full: ${lost} losses.`);
  },
};

const memory: Fault = {
  name: 'trainer-out-of-memory',
  about: "the kernel's out-of-memory killer takes the trainer",
  places: ['trainer', 'pod'],
  // Elsewhere the trainer wants no memory.
  suits: ({ name }) => /^(train|trainer|checkpoint|upload:begin)/.test(name),
  strike: async (scene, reached) => {
    const trainer = await trainerOf(scene, reached);
    const starved = starve(trainer);
    reached.release();
    await starved;
  },
};

async function leave(world: World, role: Helper['role']): Promise<void> {
  const { worker } = helperOf(world, role);
  signal(worker.pid, 'SIGTERM');
  await sleep(LEAVE_MS);
  await worker.kill();
}

const version: Fault = {
  name: 'other-version-joins',
  about: 'a pod and a control worker of another version join, the control worker and the pod that were there leave',
  places: ['pod', 'control'],
  isShared: true,
  strike: async (scene, reached) => {
    const { world } = scene;
    const pod = await podOf(scene, reached).catch(() => null);
    const launch = world.otherVersion();
    const old = helperOf(world, 'control');
    const [, joined] = await Promise.all([world.startHelper('control', launch), world.startPod(launch)]);
    signal(old.worker.pid, 'SIGTERM');
    signal(pod?.worker.pid, 'SIGTERM');
    reached.release();
    await sleep(LEAVE_MS);
    await Promise.all([old.worker.kill(), pod?.worker.kill()]);
    // Jobs of the other version can't go on without it.
    await scene.allClosed();
    await world.startHelper('control');
    await Promise.all([leave(world, 'control'), joined.worker.kill()]);
  },
};

/** What this machine does not let us do, and why; empty where everything can be tried. */
export const LEFT_OUT: readonly string[] = [
  ...(canMount() ? [] : ['pod-disk-full (needs the right to mount)']),
  ...(canLimitMemory() ? [] : ['trainer-out-of-memory (needs memory groups of cgroup v1, and the right to make them)']),
];

/** What goes wrong with the machines under the processes, and with what runs on them. */
export const MACHINE: readonly Fault[] = [disk, memory, ...clocks, version].filter(
  ({ name }) => !LEFT_OUT.some((text) => text.startsWith(`${name} `)),
);
