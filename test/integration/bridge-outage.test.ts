import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createConnection, createServer } from 'node:net';
import type { AddressInfo, Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { runSession } from '../../bridge/consumer.ts';
import { loadConfig, requireSection } from '../../common/config.ts';
import { InvalidRequestError } from '../../common/errors.ts';
import { createLogger } from '../../common/logger.ts';
import { BACKEND, DEAD_QUEUE, QUEUE, bridgeSceneForEachTest } from './support/bridge.ts';
import type { BridgeScene } from './support/bridge.ts';
import { eventually } from './support/until.ts';

/** A way to the broker that can go silent without being closed. */
async function openLink(brokerUrl: string): Promise<{ url: string; mute: () => void; cut: () => void }> {
  const sockets: Socket[] = [];
  const broker = new URL(brokerUrl);
  const proxy = createServer((socket) => {
    const upstream = createConnection(Number(broker.port), broker.hostname);
    sockets.push(socket, upstream);
    socket
      .on('error', () => undefined)
      .pipe(upstream.on('error', () => undefined))
      .pipe(socket);
  });
  await once(proxy.listen(0, '127.0.0.1'), 'listening');
  const url = new URL(brokerUrl);
  url.port = String((proxy.address() as AddressInfo).port);
  return {
    url: url.href,
    mute: () => sockets.forEach((socket) => socket.unpipe()),
    cut: () => {
      for (const socket of sockets) socket.destroy();
      proxy.close();
    },
  };
}

describe('bridge, when parts fail or stop', () => {
  let scene: BridgeScene;

  bridgeSceneForEachTest((made) => (scene = made));

  it('stops in an orderly way: takes no more messages and leaves them in the queue', async () => {
    await scene.startBridge();
    await scene.publish(scene.envelope(scene.styleId, 'before'));
    await scene.started(scene.styleId);
    const startedAtMs = Date.now();
    await scene.bridges[0]?.stop();
    assert.ok(Date.now() - startedAtMs < 5000);
    await scene.publish(scene.envelope(scene.styleId + 1, 'after'));
    const { messageCount, consumerCount } = await scene.channel.checkQueue(QUEUE);
    assert.deepEqual([messageCount, consumerCount], [1, 0]);
  });

  it('acknowledges what it finishes while it stops: the connection closed before the broker heard of it', async () => {
    const stop = new AbortController();
    const [taken, gate] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const session = runSession({
      rabbitmq: { ...requireSection(scene.config, 'rabbitmq'), prefetch: 2 },
      handle: async ({ content }) => {
        if (content.toString() === '"refused"') taken.resolve();
        await gate.promise;
        return content.toString() === '"refused"' ? new InvalidRequestError('No.') : null;
      },
      logger: createLogger({ level: 'silent' as 'info' }),
      ...{ signal: stop.signal, drainMs: 5000, onReady: () => undefined },
    });
    await scene.publish('done');
    await scene.publish('refused');
    await taken.promise;
    stop.abort();
    await sleep(200);
    gate.resolve();
    assert.deepEqual(await session, { reason: 'stopped' });
    await sleep(500);
    assert.equal((await scene.channel.checkQueue(QUEUE)).messageCount, 0);
    assert.equal((await scene.channel.checkQueue(DEAD_QUEUE)).messageCount, 1);
  });

  it('stops at once where RabbitMQ goes away while it stops', async () => {
    const abort = new AbortController();
    const link = await openLink(scene.stack.amqpUrl);
    const ready = Promise.withResolvers<void>();
    const session = runSession({
      rabbitmq: { ...requireSection(scene.config, 'rabbitmq'), url: link.url },
      handle: () => Promise.resolve(null),
      logger: createLogger({ level: 'silent' as 'info' }),
      ...{ signal: abort.signal, drainMs: 500, onReady: ready.resolve },
    });
    await ready.promise;
    // Nothing comes back any more, so that closing has begun when the connection breaks.
    link.mute();
    const startedAtMs = Date.now();
    abort.abort();
    await sleep(1000);
    link.cut();
    assert.deepEqual(await session, { reason: 'stopped' });
    assert.ok(Date.now() - startedAtMs < 3000);
  });

  it('notices a connection on which nothing comes any more; another bridge gets its message, and the late end counts for nothing', async () => {
    const link = await openLink(`${scene.stack.amqpUrl}?heartbeat=1`);
    const [taken, gate, again] = Array.from({ length: 3 }, () => Promise.withResolvers<null>());
    const stop = new AbortController();
    const rabbitmq = requireSection(scene.config, 'rabbitmq');
    const logger = createLogger({ level: 'silent' as 'info' });
    const common = { logger, signal: stop.signal, drainMs: 500, onReady: () => undefined };
    const silent = runSession({
      ...common,
      rabbitmq: { ...rabbitmq, url: link.url },
      handle: () => {
        taken!.resolve(null);
        return gate!.promise;
      },
    });
    await scene.publish('precious');
    await taken!.promise;
    const handled: boolean[] = [];
    const other = runSession({
      ...{ ...common, rabbitmq },
      handle: ({ fields }) => {
        handled.push(fields.redelivered);
        again!.resolve(null);
        return Promise.resolve(null);
      },
    });
    const mutedAtMs = Date.now();
    link.mute();
    const end = await silent;
    assert.match(end.reason === 'failed' ? end.error.message : end.reason, /Heartbeat timeout/);
    assert.ok(Date.now() - mutedAtMs < 6000, 'three heartbeats, and a moment to close');
    await again!.promise;
    gate!.resolve(null);
    await sleep(500);
    stop.abort();
    await other;
    assert.deepEqual(handled, [true]);
    assert.equal((await scene.channel.checkQueue(QUEUE)).messageCount, 0);
    link.cut();
  });

  it('takes up again after its consumer was cancelled', async () => {
    await scene.startBridge();
    await scene.channel.deleteQueue(QUEUE);
    await eventually(async () => {
      const probe = await scene.amqp.createChannel();
      probe.on('error', () => undefined);
      assert.equal((await probe.checkQueue(QUEUE)).consumerCount, 1);
      await probe.close();
    });
    await scene.publish(scene.envelope(scene.styleId, 'task-a'));
    await scene.started(scene.styleId);
  });

  it('says what to do about a queue that was declared with arguments, and goes on once that is done', async () => {
    const queue = 'declared_otherwise';
    await scene.channel.assertQueue(queue, { durable: true, arguments: { 'x-max-length': 10 } });
    const env = { ...scene.stack.environment(), BACKEND_API_URL: BACKEND, RABBITMQ_QUEUE: queue };
    const bridge = scene.startBridge({}, loadConfig({ env, roles: ['bridge'] }));
    await eventually(async () => {
      assert.match(scene.bridges[0]?.lines.join('') ?? '', /declared_otherwise exists with other arguments/);
    });
    await scene.channel.deleteQueue(queue);
    await bridge;
  });

  it('outlives a restart of RabbitMQ', async () => {
    const { lines } = await scene.startBridge();
    await scene.amqp.close();
    await scene.stack.parts.rabbitmq.restart();
    await eventually(async () => assert.equal(lines.join('').match(/waiting for job messages/g)?.length, 2));
    await scene.openPublisher();
    await scene.publish(scene.envelope(scene.styleId, 'task-a'));
    await scene.started(scene.styleId);
    await scene.queueIsEmpty();
  });

  it('holds a message while Temporal is down, gives it back after a while, and starts it when Temporal is up', async () => {
    const { lines } = await scene.startBridge({ holdMs: 4000 });
    await scene.stack.parts.temporal.stop();
    await scene.publish(scene.envelope(scene.styleId, 'patient'));
    await eventually(async () => assert.match(lines.join(''), /message held: trying again/));
    const held = await scene.channel.checkQueue(QUEUE);
    assert.deepEqual([held.messageCount, held.consumerCount], [0, 1], 'held, not acknowledged');
    await eventually(async () => {
      const given = await scene.channel.checkQueue(QUEUE);
      assert.deepEqual([given.messageCount, given.consumerCount], [1, 0], 'given back, and nothing more is taken');
    });
    await scene.stack.parts.temporal.start();
    const { taskId } = await scene.started(scene.styleId);
    assert.equal(taskId, 'patient');
    await scene.queueIsEmpty();
  });

  it('loses nothing when it is stopped while Temporal is down', async () => {
    await scene.startBridge({ drainMs: 500 });
    await scene.stack.parts.temporal.stop();
    await scene.publish(scene.envelope(scene.styleId, 'kept'));
    await eventually(async () => assert.equal((await scene.channel.checkQueue(QUEUE)).messageCount, 0));
    await scene.bridges[0]?.stop();
    assert.equal((await scene.channel.checkQueue(QUEUE)).messageCount, 1);
    await scene.stack.parts.temporal.start();
  });

  it('starts jobs all the same where a search attribute is not registered', async () => {
    const { operatorService } = scene.connection;
    await operatorService.removeSearchAttributes({ namespace: 'default', searchAttributes: ['GpuHost'] });
    const { lines } = await scene.startBridge();
    await scene.publish(scene.envelope(scene.styleId, 'one'));
    await scene.publish(scene.envelope(scene.styleId + 1, 'two'));
    assert.equal((await scene.started(scene.styleId)).input.settings.searchAttributes, false);
    assert.equal((await scene.started(scene.styleId + 1)).input.settings.searchAttributes, false);
    assert.equal(lines.join('').match(/does not know our search attributes/g)?.length, 1);
  });
});
