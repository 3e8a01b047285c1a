import { setTimeout as sleep } from 'node:timers/promises';
import type { Fault } from './fault-case.ts';
import { HELPERS } from './helper-faults.ts';
import { MACHINE } from './machine-faults.ts';
import { OPERATORS } from './operator-faults.ts';
import {
  ON_POD,
  EVERYWHERE,
  LONG_MS,
  SETTLE_MS,
  SHORT_MS,
  frozenFor,
  podOf,
  trainerToldBy,
  podLinkBroken,
  partKilled,
  usesStoreLater,
} from './strikes.ts';
import { signal } from './support/processes.ts';
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
    strike: (scene, reached) => frozenFor(HOLD_MS + 1_000 + scene.random() * 6_000)(scene, reached),
  },
  {
    name: 'pod-blocked',
    about: "the pod worker's event loop blocked for longer than the hold",
    places: ['pod'],
    suits: ({ upload }) => upload === undefined,
    strike: async (scene, reached) => {
      const pod = await podOf(scene, reached);
      reached.block(LONG_MS);
      scene.loses(pod, SETTLE_MS);
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
      scene.mustHit('the pod had no connection', () => pod.temporal.isMet);
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
      scene.mustHit('nothing came later', () => pod.temporal.isMet);
      reached.release();
      await scene.closed();
      pod.temporal.heal();
    },
  },
  {
    name: 'pod-without-store',
    about: 'the pod cut off from the store for 3 s, and until it has tried to reach it',
    places: ON_POD,
    suits: usesStoreLater,
    strike: podLinkBroken('s3', 'cut', 3_000),
  },
  {
    name: 'pod-store-stalls',
    about: 'the store does not answer the pod for 3 s, and until it has asked',
    places: ON_POD,
    suits: usesStoreLater,
    strike: podLinkBroken('s3', 'stall', 3_000),
  },
  { name: 'trainer-killed', about: 'SIGKILL of the trainer', places: ON_POD, strike: trainerToldBy('SIGKILL') },
  { name: 'trainer-segfault', about: 'SIGSEGV in the trainer', places: ON_POD, strike: trainerToldBy('SIGSEGV') },
  { name: 'trainer-aborts', about: 'SIGABRT in the trainer', places: ON_POD, strike: trainerToldBy('SIGABRT') },
  {
    name: 'trainer-stuck',
    about: 'the trainer hangs for ever',
    places: ON_POD,
    strike: trainerToldBy('SIGSTOP'),
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
  ...HELPERS,
  ...MACHINE,
  ...OPERATORS,
];
