import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { ActivityNotFoundError } from '@temporalio/client';
import type { Client } from '@temporalio/client';
import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import type { MockActivityEnvironment } from '@temporalio/testing';
import { createPodActivities } from '../../../activities/index.ts';
import { PodFence } from '../../../activities/pod-fence.ts';
import { PodLostError } from '../../../common/errors.ts';
import type { PodHeld } from '../../../common/types.ts';
import { until } from './support/heartbeats.ts';
import { TestPod, quietEnvironment } from './support/pod.ts';

const HOLD = { holdId: 'hold', styleId: 7, taskId: 'task' };

/** As much of Temporal as a hold talks to. */
class FakeServer {
  readonly signals: { workflowId: string; runId: string; name: string; pod: PodHeld }[] = [];
  beats = 0;
  /** Called for each heartbeat; may throw. */
  onBeat: () => void = () => undefined;

  get client(): Client {
    const signal = (workflowId: string, runId: string) => async (name: string, pod: PodHeld) => {
      this.signals.push({ workflowId, runId, name, pod });
      return Promise.resolve();
    };
    return {
      workflow: { getHandle: (workflowId: string, runId: string) => ({ signal: signal(workflowId, runId) }) },
      activity: {
        heartbeat: async () => {
          this.beats += 1;
          await Promise.resolve();
          this.onBeat();
        },
      },
      withDeadline: (_deadline: number, call: () => Promise<unknown>) => call(),
      withAbortSignal: (_signal: AbortSignal, call: () => Promise<unknown>) => call(),
    } as unknown as Client;
  }
}

describe('holdPod', () => {
  let pod: TestPod;
  let server: FakeServer;
  let environment: MockActivityEnvironment;
  let running: Promise<void>;

  beforeEach(() => {
    pod = new TestPod();
    pod.deps.fence = new PodFence(pod.deps.timing.fenceMs);
    server = new FakeServer();
    environment = quietEnvironment(server.client);
  });
  afterEach(() => pod.close());

  function start(): void {
    running = environment.run(createPodActivities(pod.deps).holdPod, HOLD);
    running.catch(() => undefined);
  }

  const isType = (type: string) => (error: unknown) => error instanceof ApplicationFailure && error.type === type;

  it('tells its job where to find the pod, and opens the fence for it', async () => {
    start();
    await until(() => server.signals.length > 0, 'signal');
    const held: PodHeld = { holdId: 'hold', queue: 'own-queue', host: 'here', gpu: 'cpu', vramMiB: null };
    assert.deepEqual(server.signals, [{ workflowId: 'train-style-7', runId: 'run', name: 'podHeld', pod: held }]);
    pod.deps.fence.check('hold');
    environment.cancel();
    await assert.rejects(running, CancelledFailure);
    assert.throws(() => pod.deps.fence.check('hold'), { code: 'POD_LOST' });
  });

  it('beats through the SDK and directly', async () => {
    let sdkBeats = 0;
    environment.on('heartbeat', () => (sdkBeats += 1));
    start();
    await until(() => server.beats >= 3 && sdkBeats >= 3, 'beats');
    environment.cancel();
    await assert.rejects(running, CancelledFailure);
  });

  it('stops the trainer and closes the fence when no beat is accepted for too long', async () => {
    server.onBeat = () => {
      if (server.beats > 2) throw new Error('unreachable');
    };
    start();
    await assert.rejects(running, isType('POD_LOST'));
    assert.ok(pod.trainer.calls.includes('kill'));
    assert.throws(() => pod.deps.fence.check('hold'));
  });

  it('survives beats that are refused for a while', async () => {
    server.onBeat = () => {
      if (server.beats === 3 || server.beats === 4) throw new Error('unreachable');
    };
    start();
    await until(() => server.beats >= 10, 'beats');
    pod.deps.fence.check('hold');
    assert.deepEqual(pod.trainer.calls, []);
    environment.cancel();
    await assert.rejects(running, CancelledFailure);
  });

  it('repeats a beat that was refused sooner than the next one would come', async () => {
    pod.deps.timing = { ...pod.deps.timing, beatMs: 1000 };
    pod.deps.fence = new PodFence(5000);
    server.onBeat = () => {
      if (server.beats === 1) throw new Error('unreachable');
    };
    const startedAtMs = performance.now();
    start();
    await until(() => server.beats >= 2, 'the second beat');
    assert.ok(performance.now() - startedAtMs < 900);
    environment.cancel();
    await assert.rejects(running, CancelledFailure);
  });

  it('ends when the job does not know it any more', async () => {
    server.onBeat = () => {
      throw new ActivityNotFoundError('not found');
    };
    start();
    await assert.rejects(running, isType('POD_LOST'));
  });

  it('leaves with WORKER_SHUTDOWN when the worker is asked to', async () => {
    start();
    await until(() => server.beats > 0, 'beat');
    environment.cancel('WORKER_SHUTDOWN', { workerShutdown: true } as never);
    await assert.rejects(running, isType('WORKER_SHUTDOWN'));
  });

  it("removes the job's files", async () => {
    await pod.withPictures(1);
    const { jobDirectory } = pod;
    pod.deps.jobDirectory = () => jobDirectory;
    start();
    await until(() => server.beats > 0, 'beat');
    environment.cancel();
    await assert.rejects(running, CancelledFailure);
    assert.ok(!existsSync(jobDirectory));
  });
});

describe('PodFence', () => {
  it('tells when the activities of a hold have come to rest, and does not wait for ever', async () => {
    const fence = new PodFence(60_000);
    fence.open('a');
    const [one, two] = [fence.enter('a'), fence.enter('a')];
    fence.close('a', new PodLostError('over'));
    let vacated = false;
    const waiting = fence.vacated('a', 5_000).then(() => (vacated = true));
    one.leave();
    await new Promise((resolve) => setTimeout(resolve, 60));
    assert.equal(vacated, false);
    two.leave();
    await waiting;
    fence.open('b');
    fence.enter('b');
    await fence.vacated('b', 50);
  });

  it('does not let in the hold that was here last: a reset brings it back when its files are gone', () => {
    const fence = new PodFence(60_000);
    fence.open('one');
    fence.close('one', new PodLostError('over'));
    assert.throws(() => fence.open('one'), PodLostError);
    fence.open('two');
  });

  it('lets one job in at a time', () => {
    const fence = new PodFence(1000);
    fence.open('a');
    assert.throws(() => fence.open('b'), { code: 'INTERNAL' });
    assert.throws(() => fence.check('b'), { code: 'POD_LOST' });
    fence.check('a');
  });

  it('is shut in a process that was frozen, before any timer could fire', () => {
    const fence = new PodFence(50);
    fence.open('a');
    const signal = fence.signalOf('a');
    freeze(80);
    assert.throws(() => fence.check('a'), { code: 'POD_LOST', message: /No heartbeat was accepted/ });
    assert.ok(signal.aborted);
  });

  it('counts from when a heartbeat was sent, not from when its answer came', () => {
    const fence = new PodFence(50);
    fence.open('a');
    const sentAtMs = performance.now();
    freeze(80);
    fence.accepted('a', sentAtMs);
    assert.throws(() => fence.check('a'), { code: 'POD_LOST' });
  });
});

/** As SIGSTOP does: nothing of this process runs meanwhile. */
function freeze(durationMs: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, durationMs);
}
