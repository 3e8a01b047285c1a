import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'amqplib';
import { JOB_QUEUE } from '../integration/support/service.ts';
import { until } from '../integration/support/until.ts';
import type { Fault } from './fault-case.ts';
import { EVERYWHERE, helperKilled, helperLinkBroken, helperOf, usesStoreLater } from './strikes.ts';
import { freeze, resume } from './support/processes.ts';
import type { Reached, Scene } from './support/scene.ts';
import { HOLD_MS } from './support/settings.ts';
import type { Helper, World } from './support/world.ts';

const PATIENCE_MS = 60_000;
/** Longer than any heartbeat of a control worker, and than a notice may take, may be overdue. */
const FROZEN_MS = HOLD_MS + 3_000;
/** Time limit of `findResumePoint` and `promote` where the store stalls, and how long it does. */
const HASTE = { startToClose: '6s' };
const STALLED_MS = 15_000;

/** Stops a helper while another one takes over, and lets it go on with what it had in hand. */
const frozen =
  (role: Helper['role'], isLongEnough: (world: World) => Promise<unknown>): Fault['strike'] =>
  async (scene, reached) => {
    const { world } = scene;
    const { worker } = helperOf(world, role);
    const enough = isLongEnough(world);
    freeze(worker.pid);
    reached.release();
    try {
      await Promise.all([world.startHelper(role), enough]);
    } finally {
      resume(worker.pid);
    }
    await scene.allClosed();
    await worker.kill();
  };

/** Until RabbitMQ gives up a silent connection; counts from now. */
async function connectionGivenUp({ service }: World): Promise<void> {
  const { rabbitmq } = service.stack.parts;
  const count = () => readFileSync(rabbitmq.logFile, 'utf8').split('missed heartbeats from client').length;
  const before = count();
  await until(() => count() > before, 'RabbitMQ to give the connection up', PATIENCE_MS);
}

/** Deletes the queue of job messages with what is in it, which cancels its consumers; a bridge makes it anew. */
export async function deleteQueue(world: World): Promise<void> {
  const { worker } = helperOf(world, 'bridge');
  const sessions = () => worker.lines.filter(({ msg }) => msg === 'waiting for job messages').length;
  const before = sessions();
  const connection = await connect(world.service.stack.amqpUrl);
  const channel = await connection.createChannel();
  await channel.deleteQueue(JOB_QUEUE);
  await connection.close();
  await until(() => sessions() > before, 'the bridge at the queue again', PATIENCE_MS);
}

/** Meanwhile people see why the job does not get on. */
async function stallStore(scene: Scene, reached: Reached): Promise<void> {
  for (const one of scene.batch) {
    one.mustHit('no status said that the store does not answer', () =>
      one.samples.some(({ status: { reason } }) => reason?.includes('STORAGE_UNAVAILABLE') === true),
    );
  }
  await helperLinkBroken('control', 's3', 'stall', STALLED_MS)(scene, reached);
}

/** What goes wrong with bridges and control workers. */
export const HELPERS: readonly Fault[] = [
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
    name: 'control-frozen',
    about: 'SIGSTOP of the control worker until another one has taken over, then SIGCONT',
    places: ['control'],
    isShared: true,
    strike: frozen('control', () => sleep(FROZEN_MS)),
  },
  {
    name: 'control-partitioned',
    about: 'the control worker cut off from Temporal for 6 s, connections left open',
    places: ['control'],
    isShared: true,
    strike: helperLinkBroken('control', 'temporal', 'stall', 6_000),
  },
  {
    name: 'control-without-store',
    about: 'the control worker cut off from the store for 3 s, and until it has tried to reach it',
    places: ['control'],
    suits: usesStoreLater,
    isShared: true,
    strike: helperLinkBroken('control', 's3', 'cut', 3_000),
  },
  {
    name: 'control-store-stalls',
    about: 'the store does not answer the control worker for longer than a try may take',
    places: ['control'],
    suits: ({ name }) => /^(resume:begin|promote:(begin|copied))/.test(name),
    isShared: true,
    prepare: (scene) => scene.startApart(['bridge'], { activities: { findResumePoint: HASTE, promote: HASTE } }),
    strike: stallStore,
  },
  {
    name: 'bridge-killed',
    about: 'SIGKILL of the only bridge, another one started at once',
    places: ['bridge'],
    isShared: true,
    strike: helperKilled('bridge', 0),
  },
  {
    name: 'bridge-frozen',
    about: 'SIGSTOP of the bridge until RabbitMQ has given its message to another one, then SIGCONT',
    places: ['bridge'],
    isShared: true,
    strike: frozen('bridge', connectionGivenUp),
  },
  {
    name: 'bridge-cut-off',
    about: "the bridge's connection to RabbitMQ reset",
    places: ['bridge'],
    isShared: true,
    strike: async (scene, reached) => {
      const { amqp } = helperOf(scene.world, 'bridge');
      amqp.reset();
      scene.mustHit('the bridge had no connection', () => amqp.isMet);
      reached.release();
    },
  },
  {
    name: 'bridge-partitioned',
    about: 'the bridge cut off from RabbitMQ, connections left open, until RabbitMQ gives it up',
    places: ['bridge'],
    isShared: true,
    strike: async (scene, reached) => {
      const { amqp } = helperOf(scene.world, 'bridge');
      amqp.stall();
      reached.release();
      await connectionGivenUp(scene.world).finally(() => amqp.heal());
    },
  },
  {
    name: 'bridge-without-temporal',
    about: 'the bridge cut off from Temporal for 3 s',
    places: ['bridge'],
    isShared: true,
    strike: helperLinkBroken('bridge', 'temporal', 'cut', 3_000),
  },
  {
    name: 'queue-deleted',
    about: 'the queue of messages deleted, which cancels the consumer',
    places: ['bridge'],
    // Before, the message would be gone with it.
    suits: ({ name }) => name === 'bridge:started',
    isShared: true,
    strike: async ({ world }, reached) => {
      const deleted = deleteQueue(world);
      reached.release();
      await deleted;
    },
  },
];
