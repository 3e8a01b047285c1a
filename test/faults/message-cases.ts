import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { until } from '../integration/support/until.ts';
import { BUCKET, fromTheStart, loseAPicture } from './fault-case.ts';
import type { FaultCase } from './fault-case.ts';
import { deleteQueue } from './helper-faults.ts';
import { helperOf } from './strikes.ts';
import type { Scene } from './support/scene.ts';

function pictureDenied(scene: Scene): void {
  // A picture that only this job has: others must not be denied theirs.
  const key = `pictures-of-${scene.job.styleId}/denied.png`;
  scene.job.images[0] = `s3://${BUCKET}/${key}`;
  scene.world.s3.spoil({ method: 'GET', path: new RegExp(key), flaw: 'denied', times: Infinity });
}

async function publishAgain(scene: Scene, count: number): Promise<void> {
  await Promise.all(Array.from({ length: count }, () => scene.world.service.publish(scene.job)));
}

/** RabbitMQ takes a message back when the bridge has not acknowledged it for this long. */
const CONSUMER_TIMEOUT_MS = 3_000;
/** It looks that often. */
const TICK_MS = 1_000;
const PATIENCE_MS = 90_000;

/** Temporal is away, so the bridge can't acknowledge, and RabbitMQ loses its patience. */
const consumerTimeout: FaultCase = {
  ...fromTheStart('consumer-timeout', 'bridge waits', `RabbitMQ's consumer_timeout is over while Temporal is away`, {
    prepare: async ({ world }) => {
      const { service } = world;
      const { rabbitmq, temporal } = service.stack.parts;
      const { lines } = helperOf(world, 'bridge').worker;
      const sessions = () => lines.filter(({ msg }) => msg === 'waiting for job messages').length;
      const before = sessions();
      const folder = path.join(service.stack.directory, 'rabbitmq');
      appendFileSync(path.join(folder, 'rabbitmq.conf'), `consumer_timeout = ${CONSUMER_TIMEOUT_MS}\n`);
      writeFileSync(path.join(folder, 'advanced.config'), `[{rabbit, [{channel_tick_interval, ${TICK_MS}}]}].\n`);
      await rabbitmq.restart();
      // Without Temporal the bridge would take no messages at all.
      await until(() => sessions() > before, 'the bridge at RabbitMQ again', PATIENCE_MS);
      await temporal.kill();
    },
    strike: async ({ world: { service } }) => {
      const { rabbitmq, temporal } = service.stack.parts;
      const isTakenBack = () =>
        readFileSync(rabbitmq.logFile, 'utf8').includes('timed out waiting for delivery acknowledgement');
      try {
        await until(isTakenBack, 'RabbitMQ to take the message back', PATIENCE_MS);
      } finally {
        await temporal.start();
      }
    },
    afterwards: async ({ world: { service } }) => {
      const folder = path.join(service.stack.directory, 'rabbitmq');
      const file = path.join(folder, 'rabbitmq.conf');
      writeFileSync(file, readFileSync(file, 'utf8').replaceAll(/^consumer_timeout.*\n/gm, ''));
      writeFileSync(path.join(folder, 'advanced.config'), '[].\n');
      await service.stack.parts.rabbitmq.restart();
    },
  }),
  isShared: true,
};

/** The message comes more often than once, or what it asks for can't be had. */
export const messages: readonly FaultCase[] = [
  consumerTimeout,
  {
    ...fromTheStart(
      'queue-deleted-before',
      'the message',
      'the queue of messages deleted, which cancels the consumer',
      {
        prepare: ({ world }) => deleteQueue(world),
      },
    ),
    isShared: true,
  },
  fromTheStart('message-repeated', 'before the start', 'the same message 100 times', {
    prepare: (scene) => publishAgain(scene, 99),
  }),
  fromTheStart('message-repeated', 'two bridges', 'the same message 40 times, with two bridges', {
    prepare: async (scene) => {
      await scene.world.startHelper('bridge');
      await publishAgain(scene, 39);
    },
  }),
  fromTheStart('message-repeated', 'after the end', 'the message again, ten times, after the job has ended', {
    prepare: () => undefined,
    afterwards: async (scene) => {
      await publishAgain(scene, 10);
      await sleep(2_000);
    },
  }),
  fromTheStart('message-repeated', 'training', 'the message again, ten times, while the job trains', {
    prepare: () => undefined,
    strike: async (scene) => {
      await until(async () => (await scene.status())?.phase === 'training', 'phase training', 60_000);
      await publishAgain(scene, 10);
    },
  }),
  fromTheStart('picture-lost', 'download', 'a picture does not exist', {
    ...{ outcome: 'failed', errorCode: 'IMAGE_NOT_FOUND', prepare: loseAPicture },
  }),
  fromTheStart('store-denied', 'picture', 'the store answers 403 for one picture', {
    ...{ outcome: 'failed', errorCode: 'ACCESS_DENIED', prepare: pictureDenied },
  }),
];
