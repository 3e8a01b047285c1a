import { parseArgs } from 'node:util';
import { setTimeout as sleep } from 'node:timers/promises';
import { fromTheStart } from './fault-case.ts';
import { INVARIANTS } from './invariants.ts';
import { gather, objectsOf, secretsOf } from './support/evidence.ts';
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
  --share <n>    of the pods that is killed every minute; default 0.3
  --seed <n>     which pods, and when; default: of the clock, and printed
`;

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '20' },
    jobs: { type: 'string', default: '50' },
    pods: { type: 'string', default: '4' },
    share: { type: 'string', default: '0.3' },
    seed: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});

const MINUTE_MS = 60_000;
const SAMPLE_MS = 2_000;
const SETTLE_MS = 4_000;
/** What every job must come to. */
const CASE = fromTheStart('soak', 'any', 'pods are killed all the time', { prepare: () => undefined });

/** Kills pods until the time is over, and starts others in their place. */
async function killPods(world: World, share: number, untilMs: number, random: () => number): Promise<number> {
  let killed = 0;
  while (Date.now() < untilMs) {
    const minuteEndMs = Date.now() + MINUTE_MS;
    const wanted = share * world.pods.length;
    const count = Math.floor(wanted) + (random() < wanted % 1 ? 1 : 0);
    for (const atMs of Array.from({ length: count }, () => random() * MINUTE_MS).sort((a, b) => a - b)) {
      await sleep(Math.max(0, minuteEndMs - MINUTE_MS + atMs - Date.now()));
      if (Date.now() >= untilMs) return killed;
      const [victim] = shuffled(
        world.pods.filter(({ worker }) => worker.isRunning),
        random,
      );
      await victim?.worker.kill();
      killed += victim === undefined ? 0 : 1;
      void world.fillPods();
    }
    await sleep(Math.max(0, Math.min(minuteEndMs, untilMs) - Date.now()));
  }
  return killed;
}

/** Sends a job, waits for its end and checks the invariants, all but the last look. */
async function soakedJob(world: World, seed: number, index: number): Promise<{ scene: Scene; faults: string[] }> {
  const scene = new Scene(world, 0, randomOf(`${seed} job ${index}`));
  try {
    await scene.publish();
    const closing = await scene.closed();
    const evidence = await gather(scene, CASE, closing, await objectsOf(scene));
    return { scene, faults: check(evidence) };
  } catch (error) {
    return { scene, faults: [error instanceof Error ? error.message : String(error)] };
  } finally {
    await scene.end();
  }
}

function check(evidence: Awaited<ReturnType<typeof gather>>): string[] {
  return INVARIANTS.flatMap((invariant, index) =>
    invariant(evidence).map((fault) => `invariant ${index + 1}: ${fault}`),
  );
}

async function main(): Promise<number> {
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const [minutes, jobs, pods, share] = [values.minutes, values.jobs, values.pods, values.share].map(Number) as [
    ...[number, number, number, number],
  ];
  const seed = Number(values.seed ?? Date.now() % 1_000_000);
  console.log(
    `${jobs} jobs on ${pods} pods, ${share * 100} % of them killed every minute for ${minutes} min; seed ${seed}`,
  );
  const world = await World.start({ lanes: 1, pods });
  const stop = () => void world.stop().finally(() => process.exit(130));
  for (const name of ['SIGINT', 'SIGTERM'] as const) process.once(name, stop);
  try {
    await world.reference();
    const durationMs = minutes * MINUTE_MS;
    const startedAtMs = Date.now();
    const logs = [...world.helpersOf('bridge'), ...world.helpersOf('control')].map(({ role, worker }) => ({
      ...{ log: new UsageLog(role), pid: worker.pid ?? 0 },
    }));
    logs.push({ log: new UsageLog('relays and test'), pid: process.pid });
    const sampling = setInterval(() => logs.forEach(({ log, pid }) => log.add(usageOf(pid))), SAMPLE_MS);
    const killing = killPods(world, share, startedAtMs + durationMs, randomOf(`${seed} kills`));
    const running = Array.from({ length: jobs }, async (_, index) => {
      await sleep((durationMs * index) / jobs);
      const job = await soakedJob(world, seed, index);
      const { podLosses = 0 } = job.scene.samples.at(-1)?.status ?? {};
      const tookS = ((Date.now() - startedAtMs - (durationMs * index) / jobs) / 1000).toFixed(0);
      console.log(`${job.faults.length === 0 ? 'ok  ' : 'FAIL'} job ${index + 1} (${tookS} s, ${podLosses} pods lost)`);
      for (const fault of job.faults) console.log(`     ${fault}`);
      return job;
    });
    const ended = await Promise.all(running);
    const killed = await killing;
    clearInterval(sampling);
    await sleep(SETTLE_MS);
    const faults = ended.flatMap((job) => job.faults);
    if (world.workers.some((worker) => secretsOf(world).some((secret) => worker.log().includes(secret))))
      faults.push('invariant 7: a secret is in the log of a process');
    for (const { log } of logs) {
      const { text, grew } = log.verdict();
      console.log(text);
      if (grew && log.name !== 'relays and test') faults.push(`${log.name} has grown`);
    }
    const losses = ended.map(({ scene }) => scene.samples.at(-1)?.status.podLosses ?? 0);
    const bad = ended.filter((job) => job.faults.length > 0).length;
    console.log(
      `${jobs - bad} of ${jobs} jobs ended well, ${killed} pods were killed, jobs lost ${losses.reduce((a, b) => a + b, 0)} pods; ` +
        `${faults.length} faults; seed ${seed}, ${((Date.now() - startedAtMs) / MINUTE_MS).toFixed(1)} min`,
    );
    return faults.length === 0 ? 0 : 1;
  } finally {
    await world.stop();
  }
}

process.exitCode = await main();
