import { setTimeout as sleep } from 'node:timers/promises';
import type { TrainStatus } from '../../common/types.ts';
import { idOf } from './fault-case.ts';
import type { FaultCase } from './fault-case.ts';
import { check, checkAgain, checkProcesses } from './last-look.ts';
import { NO_MOMENT } from './moments.ts';
import type { Evidence, StoredObject } from './invariants.ts';
import { gather, objectsOf } from './support/evidence.ts';
import { keepEvidence } from './support/keep-evidence.ts';
import { randomOf, shuffled } from './support/random.ts';
import { Scene } from './support/scene.ts';
import type { Closing, Reached } from './support/scene.ts';
import { AS_IN_PRODUCTION } from './support/settings.ts';
import { World } from './support/world.ts';

/** What became of a case. */
export interface CaseResult {
  faultCase: FaultCase;
  /** Broken invariants and whatever else was wrong; empty: all is well. */
  violations: string[];
  /** Pods that the job lost. */
  podLosses: number;
  /** Why, as far as it was seen. */
  lossReasons: string[];
  /** From the fault to the end of the job. */
  tookMs: number;
}

/** How to run cases. */
export interface RunOptions {
  seed: number;
  lanes: number;
  pods: number;
  /** With the time limits of production. */
  isRealTime: boolean;
  /** No case is begun after this. */
  deadlineMs: number;
  /** Ends everything at once. */
  signal: AbortSignal;
  onResult: (result: CaseResult) => void;
}

/** A case whose job has ended; looked at once more at the end of everything. */
interface Ended {
  scene: Scene;
  result: CaseResult;
  evidence: Evidence | null;
}

/** A pod may go on for a moment after its job was terminated: nobody tells it. */
const TERMINATED_SETTLE_MS = 6_000;
/** Exit code of a program that Ctrl-C ended. */
const INTERRUPTED = 130;
/** Cases between two that hit everybody. */
const GROUP_SIZE = 12;
/** What comes late must have come by then. */
const SETTLE_MS = 4_000;

/**
 * Runs cases in one world: the others side by side, those that hit everybody one fault at a time.
 *
 * @returns results in the order in which the cases ended; fewer than cases where the time ran out
 */
export async function runCases(cases: readonly FaultCase[], options: RunOptions): Promise<CaseResult[]> {
  const { seed, lanes, pods, isRealTime, deadlineMs, signal, onResult } = options;
  const world = await World.start({ lanes, pods, ...(isRealTime && { overrides: AS_IN_PRODUCTION }) });
  const ended: Ended[] = [];
  signal.addEventListener('abort', () => void world.stop().finally(() => process.exit(INTERRUPTED)));
  try {
    await world.reference();
    const run = async (batch: FaultCase[], firstLane: number) => {
      const results = await runBatch(world, batch, firstLane, seed);
      for (const one of results) onResult(one.result);
      ended.push(...results);
    };
    const inTime = () => Date.now() < deadlineMs;
    for (const { isShared, members } of groupsOf(cases, lanes, randomOf(`order ${seed}`))) {
      if (isShared && inTime()) await run(members, 0);
      if (isShared) continue;
      const waiting = [...members];
      const work = async (lane: number) => {
        for (let next = waiting.shift(); next !== undefined && inTime(); next = waiting.shift())
          await run([next], lane);
      };
      await Promise.all(Array.from({ length: lanes }, (_, lane) => work(lane)));
    }
    await sleep(SETTLE_MS);
    for (const one of ended) await lookAgain(one);
    // Charged to one case of the world, though another may have caused it.
    ended[0]?.result.violations.push(...checkProcesses(world));
    return ended.map(({ result }) => result);
  } finally {
    await world.stop();
  }
}

/** Cases that run side by side. */
interface Group {
  /** Struck together by one fault; else one by one, in whichever lane is free. */
  isShared: boolean;
  members: FaultCase[];
}

/** In an order in which a run that is cut short has tried some of everything: first one of each fault, then of each another. */
function groupsOf(cases: readonly FaultCase[], lanes: number, random: () => number): Group[] {
  const byFault = [...Map.groupBy(shuffled(cases, random), ({ fault }) => fault).values()];
  const shared = byFault.filter(([one]) => one?.isShared === true).flatMap((members) => cut(members, lanes, true));
  const others = byFault
    .filter(([one]) => one?.isShared === false)
    .flatMap((members) => members.map((one, index) => ({ one, turn: index / members.length })))
    .sort((a, b) => a.turn - b.turn)
    .map(({ one }) => one);
  return [...shared, ...cut(others, GROUP_SIZE, false)].sort((a, b) => a.turn - b.turn).map(({ group }) => group);
}

/** In groups, each with its place in the whole: from 0, the first, to 1. */
function cut(members: readonly FaultCase[], size: number, isShared: boolean): { group: Group; turn: number }[] {
  return Array.from({ length: Math.ceil(members.length / size) }, (_, index) => ({
    group: { isShared, members: members.slice(index * size, (index + 1) * size) },
    turn: (index * size) / members.length,
  }));
}

async function runBatch(world: World, batch: FaultCase[], firstLane: number, seed: number): Promise<Ended[]> {
  await world.fillPods();
  const jobs = batch.map((faultCase, index) => ({
    faultCase,
    scene: new Scene(world, firstLane + index, idOf(faultCase), seed),
    violations: [] as string[],
  }));
  for (const { scene } of jobs) scene.batch = jobs.map((job) => job.scene);
  const blame = (job: (typeof jobs)[number], what: string) => (error: unknown) => {
    job.violations.push(`${what}: ${error instanceof Error ? error.message : String(error)}`);
  };
  const held: Reached[] = [];
  await Promise.all(
    jobs.map(async (job) => {
      try {
        await job.faultCase.prepare(job.scene);
        await job.scene.publish();
        const reached = await job.faultCase.reach(job.scene);
        if (reached !== null) held.push(reached);
      } catch (error) {
        blame(job, 'the moment was not reached')(error);
      }
    }),
  );
  // Where the moment was not reached, another job of the batch stands for all.
  const striker = jobs.find(({ violations }) => violations.length === 0);
  const struckAtMs = Date.now();
  const all: Reached = {
    moment: held[0]?.moment ?? NO_MOMENT,
    pid: held[0]?.pid ?? null,
    release: () => held.forEach(({ release }) => release()),
    block: (durationMs) => held.forEach(({ block }) => block(durationMs)),
  };
  const strike = Promise.resolve(striker?.faultCase.strike(striker.scene, all)).catch((error: unknown) => {
    for (const job of jobs) blame(job, 'the fault could not be done')(error);
  });
  const results = await Promise.all(
    jobs.map(async (job): Promise<Ended> => {
      const { scene, faultCase, violations } = job;
      let closing: Closing = { status: 'RUNNING', atMs: Date.now() };
      let evidence: Evidence | null = null;
      try {
        if (violations.length > 0) throw new Error('the case was given up');
        if (faultCase.isAfterEnd === true) await strike;
        closing = await scene.closed();
        if (faultCase.outcome === 'terminated') await sleep(TERMINATED_SETTLE_MS);
        const objects = await objectsWhenPossible(scene);
        await strike;
        await faultCase.afterwards?.(scene);
        evidence = await gather(scene, faultCase, closing, objects);
        violations.push(...check(evidence));
      } catch (error) {
        if (violations.length === 0) blame(job, 'it did not end as it should')(error);
        await scene.handle.terminate('given up by the fault tests').catch(() => undefined);
      }
      await strike;
      violations.push(...scene.misses());
      scene.backend.setBehaviour(null);
      await scene.end();
      if (violations.length > 0) {
        const directory = await keepEvidence(scene, `${seed}-${idOf(faultCase)}`, violations);
        violations.push(`what there was to see is in ${directory}`);
      }
      const podLosses = scene.samples.at(-1)?.status.podLosses ?? 0;
      const lossReasons = [...new Set(scene.samples.flatMap(({ status }) => lossReason(status)))];
      const tookMs = closing.atMs - struckAtMs;
      return { scene, evidence, result: { faultCase, violations, podLosses, lossReasons, tookMs } };
    }),
  );
  void world.fillPods();
  return results;
}

function lossReason({ lastError }: TrainStatus): string[] {
  return lastError?.code === 'POD_LOST' || lastError?.code === 'WORKER_SHUTDOWN' ? [lastError.message] : [];
}

/** The store itself may be what is broken. */
async function objectsWhenPossible(scene: Scene): Promise<StoredObject[]> {
  for (let tries = 0; ; tries++) {
    try {
      return await objectsOf(scene);
    } catch (error) {
      if (tries === 20) throw error;
      await sleep(500);
    }
  }
}

/** Nothing may have changed since the end of the job. */
async function lookAgain({ scene, result, evidence }: Ended): Promise<void> {
  if (evidence === null || result.violations.length > 0) return;
  result.violations.push(...(await checkAgain(scene, evidence)));
}
