import { setTimeout as sleep } from 'node:timers/promises';
import type { Fault } from './fault-case.ts';
import { MACHINE } from './machine-faults.ts';
import { OPERATORS } from './operator-faults.ts';
import {
  ON_POD,
  EVERYWHERE,
  LONG_MS,
  SETTLE_MS,
  SHORT_MS,
  podOf,
  trainerOf,
  helperOf,
  trainerEndedBy,
  podLinkBroken,
  controlLinkBroken,
  helperKilled,
  partKilled,
} from './strikes.ts';
import { freeze, resume, signal } from './support/processes.ts';
import { HOLD_MS } from './support/settings.ts';

/** Every fault that is struck at moments. */
export const FAULTS: readonly Fault[] = [
  {
    name: 'pod-killed',
    about: 'SIGKILL of the pod worker',
    places: ON_POD,
    strike: async (scene, reached) => (await podOf(scene, reached)).worker.kill(),
  },
  {
    name: 'pod-leaves',
    about: 'SIGTERM of the pod worker, SIGKILL 5 s later',
    places: ON_POD,
    strike: async (scene, reached) => {
      const { worker } = await podOf(scene, reached);
      signal(worker.pid, 'SIGTERM');
      reached.release();
      await sleep(5_000);
      await worker.kill();
    },
  },
  {
    name: 'pod-frozen',
    about: 'SIGSTOP of pod worker and trainer for longer than the hold, then SIGCONT',
    places: ON_POD,
    strike: async (scene, reached) => {
      const pod = await podOf(scene, reached);
      pod.isFrozen = true;
      freeze(pod.worker.pid);
      void scene.world.fillPods();
      reached.release();
      await sleep(HOLD_MS + 1_000 + scene.random() * 6_000);
      scene.zombies.push({ pod, sinceMs: Date.now() });
      resume(pod.worker.pid);
      pod.isFrozen = false;
    },
  },
  {
    name: 'pod-blocked',
    about: "the pod worker's event loop blocked for longer than the hold",
    places: ['pod'],
    suits: ({ upload }) => upload === undefined,
    strike: async (scene, reached) => {
      scene.zombies.push({ pod: await podOf(scene, reached), sinceMs: Date.now() + SETTLE_MS });
      reached.block(LONG_MS);
      await sleep(LONG_MS);
    },
  },
  {
    name: 'pod-partitioned',
    about: 'the pod cut off from Temporal, connections left open, for longer than the hold',
    places: ON_POD,
    strike: podLinkBroken('temporal', 'stall', LONG_MS),
  },
  {
    name: 'pod-cut-off',
    about: 'the pod cut off from Temporal, connections refused, for longer than the hold',
    places: ON_POD,
    strike: podLinkBroken('temporal', 'cut', LONG_MS),
  },
  {
    name: 'pod-hiccup',
    about: 'the pod cut off from Temporal for less than the hold',
    places: ON_POD,
    strike: podLinkBroken('temporal', 'stall', SHORT_MS),
  },
  {
    name: 'pod-reset',
    about: 'every connection of the pod reset',
    places: ON_POD,
    strike: async (scene, reached) => {
      const pod = await podOf(scene, reached);
      pod.temporal.reset();
      pod.s3.reset();
      reached.release();
    },
  },
  {
    name: 'pod-far-away',
    about: "everything between the pod and Temporal comes 300 ms later, until the job's end",
    places: ON_POD,
    strike: async (scene, reached) => {
      const pod = await podOf(scene, reached);
      pod.temporal.delay(300);
      reached.release();
      await scene.closed();
      pod.temporal.heal();
    },
  },
  {
    name: 'pod-without-store',
    about: 'the pod cut off from the store for 3 s',
    places: ON_POD,
    strike: podLinkBroken('s3', 'cut', 3_000),
  },
  {
    name: 'pod-store-stalls',
    about: 'the store does not answer the pod for 3 s',
    places: ON_POD,
    strike: podLinkBroken('s3', 'stall', 3_000),
  },
  { name: 'trainer-killed', about: 'SIGKILL of the trainer', places: ON_POD, strike: trainerEndedBy('SIGKILL') },
  { name: 'trainer-segfault', about: 'SIGSEGV in the trainer', places: ON_POD, strike: trainerEndedBy('SIGSEGV') },
  { name: 'trainer-aborts', about: 'SIGABRT in the trainer', places: ON_POD, strike: trainerEndedBy('SIGABRT') },
  {
    name: 'trainer-stuck',
    about: 'the trainer hangs for ever',
    places: ON_POD,
    strike: async (scene, reached) => {
      signal(await trainerOf(scene, reached), 'SIGSTOP');
      reached.release();
    },
  },
  {
    name: 'control-killed',
    about: 'SIGKILL of the only control worker, another one started at once',
    places: EVERYWHERE,
    isShared: true,
    strike: helperKilled('control', 0),
  },
  {
    name: 'control-gone',
    about: 'no control worker for 8 s',
    places: EVERYWHERE,
    isShared: true,
    strike: helperKilled('control', 8_000),
  },
  {
    name: 'control-partitioned',
    about: 'the control worker cut off from Temporal for 6 s, connections left open',
    places: ['control'],
    isShared: true,
    strike: controlLinkBroken('temporal', 'stall', 6_000),
  },
  {
    name: 'control-without-store',
    about: 'the control worker cut off from the store for 3 s',
    places: ['control'],
    isShared: true,
    strike: controlLinkBroken('s3', 'cut', 3_000),
  },
  {
    name: 'bridge-killed',
    about: 'SIGKILL of the only bridge, another one started at once',
    places: ['bridge'],
    isShared: true,
    strike: helperKilled('bridge', 0),
  },
  {
    name: 'bridge-cut-off',
    about: "the bridge's connection to RabbitMQ reset",
    places: ['bridge'],
    isShared: true,
    strike: async ({ world }, reached) => {
      helperOf(world, 'bridge').amqp.reset();
      reached.release();
    },
  },
  {
    name: 'bridge-without-temporal',
    about: 'the bridge cut off from Temporal for 3 s',
    places: ['bridge'],
    isShared: true,
    strike: async ({ world }, reached) => {
      const { temporal } = helperOf(world, 'bridge');
      temporal.cut();
      reached.release();
      await sleep(3_000);
      temporal.heal();
    },
  },
  {
    name: 'temporal-restarted',
    about: 'Temporal killed and started again at once',
    places: EVERYWHERE,
    isShared: true,
    strike: partKilled('temporal', 0),
  },
  {
    name: 'temporal-gone',
    about: 'no Temporal for longer than the hold',
    places: EVERYWHERE,
    isShared: true,
    strike: partKilled('temporal', LONG_MS),
  },
  {
    name: 'rabbitmq-restarted',
    about: 'RabbitMQ killed and started again',
    places: ['bridge'],
    isShared: true,
    strike: partKilled('rabbitmq', 0),
  },
  {
    name: 'store-restarted',
    about: 'the S3 server killed and started again 2 s later',
    places: ['pod', 'trainer', 'control'],
    isShared: true,
    strike: partKilled('s3', 2_000),
  },
  ...MACHINE,
  ...OPERATORS,
];
