import assert from 'node:assert/strict';
import { moveDeadLetters } from '../../bridge/dead-letters.ts';
import type { DeadLetter } from '../../bridge/dead-letters.ts';
import { workflowIdOf } from '../../common/style-trainings.ts';
import { requireSection } from '../../common/config.ts';
import { DEAD_QUEUE, QUEUE, bridgeSceneForEachTest } from './support/bridge.ts';
import type { BridgeScene } from './support/bridge.ts';
import { eventually } from './support/until.ts';

describe('dead letters', () => {
  let scene: BridgeScene;

  bridgeSceneForEachTest((made) => (scene = made));

  it('takes dead letters that an operator puts back, chosen by their code', async () => {
    await scene.startBridge();
    const rabbitmq = requireSection(scene.config, 'rabbitmq');
    await scene.publish(scene.envelope(scene.styleId, 'first'));
    await scene.started(scene.styleId);
    await scene.publish({ neither: 'shape' });
    await scene.publish(scene.envelope(scene.styleId, 'second'));
    await eventually(async () => assert.equal((await scene.channel.checkQueue(DEAD_QUEUE)).messageCount, 2));
    await scene.client.workflow.getHandle(workflowIdOf(scene.styleId)).terminate();

    const { letters, movedCount } = await moveDeadLetters(
      rabbitmq,
      ({ errorCode }) => errorCode === 'TRAINING_IN_PROGRESS',
    );
    assert.deepEqual(
      letters.map(({ errorCode, styleId }) => [errorCode, styleId]),
      [
        ['INVALID_REQUEST', null],
        ['TRAINING_IN_PROGRESS', scene.styleId],
      ],
    );
    assert.equal(movedCount, 1);
    await eventually(async () => assert.equal((await scene.started(scene.styleId)).taskId, 'second'));

    const { properties } = await scene.deadMessage();
    const firstSeen = String(properties.headers?.['x-first-seen']);
    await scene.publish({ neither: 'shape' }, { headers: { 'x-first-seen': firstSeen } });
    await eventually(async () => assert.equal((await scene.channel.checkQueue(DEAD_QUEUE)).messageCount, 1));
    assert.equal((await moveDeadLetters(rabbitmq, () => true)).movedCount, 1);
    const again = await scene.deadMessage();
    assert.equal(again.properties.headers?.['x-first-seen'], firstSeen, 'refused again, and still as old');
  });

  it('looks at every dead letter, however many there are', async () => {
    await scene.channel.assertQueue(DEAD_QUEUE, { durable: true });
    for (let count = 0; count < 1001; count++)
      scene.channel.sendToQueue(DEAD_QUEUE, Buffer.from('{}'), { headers: { 'x-error-code': 'INTERNAL' } });
    scene.channel.sendToQueue(DEAD_QUEUE, Buffer.from('{}'), { headers: { 'x-error-code': 'BLOCKED_TARGET' } });
    await scene.channel.waitForConfirms();
    const isWanted = ({ errorCode }: DeadLetter) => errorCode === 'BLOCKED_TARGET';
    const { letters, movedCount } = await moveDeadLetters(requireSection(scene.config, 'rabbitmq'), isWanted);
    assert.deepEqual([letters.length, movedCount], [1002, 1]);
    await eventually(async () => {
      assert.equal((await scene.channel.checkQueue(DEAD_QUEUE)).messageCount, 1001);
      assert.equal((await scene.channel.checkQueue(QUEUE)).messageCount, 1);
    });
  });
});
