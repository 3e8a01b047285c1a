import { parseArgs } from 'node:util';
import { setTimeout as sleep } from 'node:timers/promises';
import { fromTheStart } from './fault-case.ts';
import type { Evidence } from './invariants.ts';
import { check, checkAgain, checkProcesses } from './last-look.ts';
import { gather, objectsOf } from './support/evidence.ts';
import { leftBehind } from './support/left-behind.ts';
import { randomOf, shuffled } from './support/random.ts';
import { Scene } from './support/scene.ts';
import { UsageLog, usageOf } from './support/usage.ts';
import { World } from './support/world.ts';

// The soak test: many jobs on a few pods, of which some are killed every minute (see docs/faults.md). All jobs must end well,
// and the processes that live through all of it must not grow.

const HELP = `Usage: npm run test:soak -- [options]

  --minutes <n>  how long jobs come and pods die; default 20
  --jobs <n>     spread evenly over that time; default 50
  --pods <n>     default 4
  --epochs <n>   of each job: enough to keep the pods at work; default 60
  --share <n>    of the pods that is killed every minute; default 0.3
  --seed <n>     which pods, and when; default: of the clock, and printed
`;

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '20' },
    jobs: { type: 'string', default: '50' },
    pods: { type: 'string', default: '4' },
    epochs: { type: 'string', default: '60' },
    share: { type: 'string', default: '0.3' },
    seed: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});

const COUNTS = {
  minutes: Number(values.minutes),
  jobs: Number(values.jobs),
  pods: Number(values.pods),
  share: Number(values.share),
  epochs: Number(values.epochs),
};
const MINUTE_MS = 60_000;
/** A job may have to wait for a pod, and be repeated on several. */
const JOB_LIMIT_MS = 20 * MINUTE_MS;
const SAMPLE_MS = 2_000;
const SETTLE_MS = 4_000;
/** What every job must come to. */
const CASE = fromTheStart('soak', 'any', 'pods are killed all the time', { prepare: () => undefined });

/** Pods that were killed, and how many of them had a job in hand. */
interface Kills {
  pods: number;
  busy: number;
}

interface SoakedJob {
  scene: Scene;
  evidence: Evidence | null;
  faults: string[];
}

/** Kills pods until the time is over, and starts others in their place. */
async function killPods(
  world: World,
  scenes: ReadonlySet<Scene>,
  { share, untilMs, random }: { share: number; untilMs: number; random: () => number },
): Promise<Kills> {
  const kills: Kills = { pods: 0, busy: 0 };
  while (Date.now() < untilMs) {
    const minuteEndMs = Date.now() + MINUTE_MS;
    const wanted = share * world.pods.length;
    const count = Math.floor(wanted) + (random() < wanted % 1 ? 1 : 0);
    for (const atMs of Array.from({ length: count }, () => random() * MINUTE_MS).sort((a, b) => a - b)) {
      await sleep(Math.max(0, minuteEndMs - MINUTE_MS + atMs - Date.now()));
      if (Date.now() >= untilMs) return kills;
      const running = world.pods.filter(({ worker }) => worker.isRunning);
      const [victim] = shuffled(running, random);
      if (victim === undefined) continue;
      const holders = await Promise.all([...scenes].map((scene) => scene.holder().catch(() => undefined)));
      await victim.worker.kill();
      kills.pods += 1;
      kills.busy += holders.includes(victim) ? 1 : 0;
      void world.fillPods();
    }
    await sleep(Math.max(0, Math.min(minuteEndMs, untilMs) - Date.now()));
  }
  return kills;
}

/** Waits for the end of a job and checks the invariants, all but the last look. */
async function soak(scene: Scene): Promise<SoakedJob> {
  try {
    await scene.publish();
    const closing = await scene.closed(JOB_LIMIT_MS);
    const evidence = await gather(scene, CASE, closing, await objectsOf(scene));
    return { scene, evidence, faults: check(evidence) };
  } catch (error) {
    return { scene, evidence: null, faults: [error instanceof Error ? error.message : String(error)] };
  } finally {
    await scene.end();
  }
}

/** Once all jobs have ended: what came late, what processes did, what they left on their disks. */
async function lastLook(world: World, ended: readonly SoakedJob[]): Promise<string[]> {
  const faults = checkProcesses(world);
  for (const { scene, evidence } of ended) {
    if (evidence !== null) faults.push(...(await checkAgain(scene, evidence)));
  }
  const processes = [...world.pods, ...world.helpers].filter(({ worker }) => worker.isRunning);
  const files = processes.flatMap(leftBehind);
  console.log(`${files.length} files are left on the disks of ${processes.length} processes`);
  return [...faults, ...files.map((file) => `left behind: ${file}`)];
}

async function main(): Promise<number> {
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const { jobs, pods, share, epochs } = COUNTS;
  const seed = Number(values.seed ?? Date.now() % 1_000_000);
  console.log(
    `${jobs} jobs of ${epochs} epochs on ${pods} pods, ${share * 100} % of them killed every minute for ` +
      `${COUNTS.minutes} min; seed ${seed}`,
  );
  const world = await World.start({ lanes: 1, pods, epochs });
  const stop = () => void world.stop().finally(() => process.exit(130));
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, stop);
  try {
    await world.reference();
    const durationMs = COUNTS.minutes * MINUTE_MS;
    const startedAtMs = Date.now();
    const logs = [...world.helpersOf('bridge'), ...world.helpersOf('control')].map(({ role, worker }) => ({
      ...{ log: new UsageLog(role), pid: worker.pid ?? 0 },
    }));
    logs.push({ log: new UsageLog('relays and test'), pid: process.pid });
    const sampling = setInterval(() => logs.forEach(({ log, pid }) => log.add(usageOf(pid))), SAMPLE_MS);
    const scenes = new Set<Scene>();
    const untilMs = startedAtMs + durationMs;
    const killing = killPods(world, scenes, { share, untilMs, random: randomOf(`${seed} kills`) });
    const running = Array.from({ length: jobs }, async (_, index) => {
      await sleep((durationMs * index) / jobs);
      const scene = new Scene(world, 0, `job ${index}`, seed);
      scenes.add(scene);
      const job = await soak(scene);
      scenes.delete(scene);
      const tookS = ((Date.now() - startedAtMs - (durationMs * index) / jobs) / 1000).toFixed(0);
      const mark = job.faults.length === 0 ? 'ok  ' : 'FAIL';
      console.log(`${mark} job ${index + 1} (${tookS} s, ${lossesOf(job)} pods lost)`);
      for (const fault of job.faults) console.log(`     ${fault}`);
      return job;
    });
    const ended = await Promise.all(running);
    const killed = await killing;
    clearInterval(sampling);
    await sleep(SETTLE_MS);
    const late = await lastLook(world, ended);
    for (const { log } of logs) {
      const { text, grew } = log.verdict();
      console.log(text);
      if (grew && log.name !== 'relays and test') late.push(`${log.name} has grown`);
    }
    for (const fault of late) console.log(`     ${fault}`);
    const bad = ended.filter((job) => job.faults.length > 0).length;
    const losses = ended.reduce((sum, job) => sum + lossesOf(job), 0);
    console.log(
      `${jobs - bad} of ${jobs} jobs ended well; ${killed.pods} pods were killed, ${killed.busy} of them at work, jobs lost ` +
        `${losses} pods; ${late.length} faults beside; seed ${seed}, ` +
        `${((Date.now() - startedAtMs) / MINUTE_MS).toFixed(1)} min`,
    );
    return bad === 0 && late.length === 0 ? 0 : 1;
  } finally {
    await world.stop();
  }
}

function lossesOf({ scene }: SoakedJob): number {
  return scene.samples.at(-1)?.status.podLosses ?? 0;
}

process.exitCode = await main();
