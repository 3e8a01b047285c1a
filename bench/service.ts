import { setTimeout as sleep } from 'node:timers/promises';
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { momentOf } from '../test/faults/moments.ts';
import { childrenOf } from '../test/faults/support/processes.ts';
import { Scene } from '../test/faults/support/scene.ts';
import { AS_IN_PRODUCTION } from '../test/faults/support/settings.ts';
import { World } from '../test/faults/support/world.ts';
import type { Pod } from '../test/faults/support/world.ts';
import { until } from '../test/integration/support/until.ts';

// What the service itself costs, with every part real, the time limits of production and a tiny model on the CPU:
// how soon a job goes on after its pod was killed, how soon a trainer rests after a cancel, what checkpoints cost a training.

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '3' }, only: { type: 'string', default: 'kill,cancel,uploads' } },
});
const ROUNDS = Number(values.rounds);
const wants = (what: string) => values.only.split(',').includes(what);

const CHUNK_EPOCHS = 10;
const EPOCHS = 4 * CHUNK_EPOCHS;
/** A trainer that did nothing for this long rests. */
const REST_MS = 1_500;
const POLL_MS = 50;
const LIMIT_MS = 300_000;
/** Exit code of a program that Ctrl-C ended. */
const INTERRUPTED = 130;

const seconds = (ms: number) => `${(ms / 1000).toFixed(2)} s`;

function medianOf(numbers: readonly number[]): number {
  return [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? NaN;
}

function print(what: string, times: readonly number[], limit: string): void {
  const all = times.map(seconds).join(', ');
  console.log(`${what}: median ${seconds(medianOf(times))}, longest ${seconds(Math.max(...times))} (${all}); ${limit}`);
}

function newScene(world: World): Scene {
  return new Scene(world, 0, 'bench', 0, world.job(0, EPOCHS));
}

async function atStep(world: World): Promise<{ scene: Scene; pod: Pod; release: () => void }> {
  await world.fillPods();
  const scene = newScene(world);
  const moment = momentOf('train:step');
  scene.arm(moment);
  await scene.publish();
  const { release } = await scene.reach(moment);
  const pod = await scene.holder();
  if (pod === undefined) throw new Error('Nobody trains.');
  return { scene, pod, release };
}

/** From SIGKILL of the pod to the first step of the same job on another one. */
async function killed(world: World): Promise<number> {
  const { scene, pod } = await atStep(world);
  const { taskId } = scene.job;
  const killedAtMs = Date.now();
  await pod.worker.kill();
  let steppedAtMs: number | undefined;
  const stepped = () => {
    const lines = world.pods.filter((other) => other !== pod).flatMap(({ worker }) => worker.lines);
    steppedAtMs = lines.find(
      ({ msg, task, atMs }) => /first step/.test(msg) && task === taskId && atMs > killedAtMs,
    )?.atMs;
    return steppedAtMs !== undefined;
  };
  await until(stepped, 'a step on another pod', LIMIT_MS);
  await scene.handle.cancel();
  await scene.closed();
  await scene.end();
  return (steppedAtMs ?? 0) - killedAtMs;
}

/** Processor time of a process so far, in clock ticks. */
function ticksOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const [, userTicks, systemTicks] = /^(?:\S+ ){11}(\d+) (\d+)/.exec(stat.slice(stat.lastIndexOf(')') + 2)) ?? [];
  return Number(userTicks) + Number(systemTicks);
}

/** From `cancel` to the moment from which on the trainer did nothing. */
async function cancelled(world: World): Promise<number> {
  const { scene, pod, release } = await atStep(world);
  const [trainer] = pod.worker.pid === undefined ? [] : childrenOf(pod.worker.pid);
  if (trainer === undefined) throw new Error('There is no trainer.');
  release();
  const cancelledAtMs = Date.now();
  await scene.handle.cancel();
  let busyAtMs = cancelledAtMs;
  let ticks = ticksOf(trainer);
  while (Date.now() - busyAtMs < REST_MS) {
    await sleep(POLL_MS);
    try {
      const now = ticksOf(trainer);
      if (now > ticks) busyAtMs = Date.now();
      ticks = now;
    } catch {
      // It was ended, which is rest enough.
      break;
    }
  }
  await scene.closed();
  await scene.end();
  return busyAtMs - cancelledAtMs;
}

/** What a training's history says about its chunks. */
interface Chunks {
  chunkMs: number;
  /** Between two chunks, when the trainer has nothing to do. */
  pausesMs: number[];
  uploadMs: number;
}

async function chunksOf(world: World): Promise<Chunks> {
  const scene = newScene(world);
  await scene.publish();
  await scene.closed();
  await scene.end();
  const { events } = await scene.handle.fetchHistory();
  const spans = new Map<string, { name: string; fromMs: number; toMs: number }>();
  for (const event of events ?? []) {
    const atMs = Number(event.eventTime?.seconds ?? 0) * 1000 + (event.eventTime?.nanos ?? 0) / 1e6;
    const { activityTaskScheduledEventAttributes: scheduled, activityTaskStartedEventAttributes: started } = event;
    const completed = event.activityTaskCompletedEventAttributes;
    if (scheduled)
      spans.set(String(event.eventId), { name: scheduled.activityType?.name ?? '', fromMs: atMs, toMs: atMs });
    const span = spans.get(String((started ?? completed)?.scheduledEventId));
    if (started && span) span.fromMs = atMs;
    if (completed && span) span.toMs = atMs;
  }
  const named = (name: string) => [...spans.values()].filter((span) => span.name === name);
  const chunks = named('trainEpochChunk');
  const durationOf = ({ fromMs, toMs }: { fromMs: number; toMs: number }) => toMs - fromMs;
  return {
    chunkMs: medianOf(chunks.map(durationOf)),
    pausesMs: chunks.slice(1).map(({ fromMs }, index) => fromMs - (chunks[index]?.toMs ?? fromMs)),
    uploadMs: medianOf(named('checkpoint').map(durationOf)),
  };
}

async function uploads(world: World): Promise<void> {
  const { chunkMs } = await chunksOf(world);
  const quick: Chunks[] = [];
  const slow: Chunks[] = [];
  // In turns, so that whatever else the machine does hits both.
  for (let round = 0; round < ROUNDS; round++) {
    world.s3.slowDown(null);
    quick.push(await chunksOf(world));
    world.s3.slowDown({ path: /\/data\//, byMs: chunkMs / 2 });
    slow.push(await chunksOf(world));
  }
  world.s3.slowDown(null);
  const pauseOf = (all: Chunks[]) => medianOf(all.flatMap(({ pausesMs }) => pausesMs));
  const show = (all: Chunks[]) =>
    `chunk ${seconds(medianOf(all.map((one) => one.chunkMs)))}, upload ${seconds(medianOf(all.map((one) => one.uploadMs)))}, ` +
    `pause between chunks ${seconds(pauseOf(all))}`;
  console.log(`store as it is: ${show(quick)}`);
  console.log(`store slowed down: ${show(slow)}`);
  const costMs = pauseOf(slow) - pauseOf(quick);
  const share = (100 * costMs) / medianOf(slow.map((one) => one.chunkMs));
  const addedMs = medianOf(slow.map((one) => one.uploadMs)) - medianOf(quick.map((one) => one.uploadMs));
  console.log(
    `uploads that take ${seconds(addedMs)} longer prolong the pause by ${seconds(costMs)}: ${share.toFixed(1)} % of the training; wanted: under 1 %`,
  );
}

console.log(`${ROUNDS} rounds of each`);
const overrides = { ...AS_IN_PRODUCTION, workflow: { chunkEpochs: CHUNK_EPOCHS } };
const world = await World.start({ lanes: 1, pods: 2, overrides });
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.once(name, () => void world.stop().finally(() => process.exit(INTERRUPTED)));
}
try {
  // The base model is warm afterwards, on both pods.
  await Promise.all([chunksOf(world), chunksOf(world)]);
  const times = async (measure: () => Promise<number>) => {
    const all: number[] = [];
    for (let round = 0; round < ROUNDS; round++) all.push(await measure());
    return all;
  };
  if (wants('kill'))
    print('pod killed, first step on another pod', await times(() => killed(world)), 'wanted: at most 30 s');
  if (wants('cancel')) print('cancel, trainer at rest', await times(() => cancelled(world)), 'wanted: at most 10 s');
  if (wants('uploads')) await uploads(world);
} finally {
  await world.stop();
}
