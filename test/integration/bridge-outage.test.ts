import assert from 'node:assert/strict';
import { loadConfig } from '../../common/config.ts';
import { BACKEND, QUEUE, bridgeSceneForEachTest } from './support/bridge.ts';
import type { BridgeScene } from './support/bridge.ts';
import { eventually } from './support/until.ts';

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
