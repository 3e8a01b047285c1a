import assert from 'node:assert/strict';
import type { Writable } from 'node:stream';
import { Client, WorkflowNotFoundError } from '@temporalio/client';
import { connect } from 'amqplib';
import type { Options } from 'amqplib';
import { parseJobMessage } from '../../bridge/envelope.ts';
import { TrainingStarter, refusalIdOf } from '../../bridge/start-training.ts';
import { createLogger } from '../../common/logger.ts';
import { workflowIdOf } from '../../common/style-trainings.ts';
import { trainingConfigFor } from '../../common/training-config.ts';
import type { RefusalInput } from '../../common/types.ts';
import { BACKEND, DEAD_QUEUE, IMAGES, bridgeSceneForEachTest } from './support/bridge.ts';
import type { BridgeScene } from './support/bridge.ts';
import { eventually } from './support/until.ts';

describe('bridge', () => {
  let scene: BridgeScene;

  bridgeSceneForEachTest((made) => (scene = made));

  it('starts a workflow for an envelope', async () => {
    await scene.startBridge();
    const { styleId } = scene;
    const data = { parameters: { epochs: 200, learning_rate: 5e-5, batch_size: 2 }, tags: ['ink', 'wash'] };
    await scene.publish(scene.envelope(styleId, 'task-a', data));
    const { input, taskId, summary } = await scene.started(styleId);
    const { settings, ...job } = input;
    assert.deepEqual(job, {
      styleId,
      taskId: 'task-a',
      images: IMAGES,
      tags: ['ink', 'wash'],
      parameters: { epochs: 200, learningRate: 5e-5, batchSize: 2 },
      expectedEpochs: 200,
      webhookOrigin: BACKEND,
    });
    assert.deepEqual(settings.limits, scene.config.limits);
    assert.equal(settings.searchAttributes, true);
    assert.equal(taskId, 'task-a');
    assert.equal(summary, `style ${styleId} · 12 images · 200 epochs`);
    await scene.queueIsEmpty();
  });

  it('starts a workflow for a flat message, findable by its search attributes', async () => {
    await scene.startBridge();
    await scene.publish({ style_id: scene.styleId, image_urls: IMAGES, webhook_url: BACKEND });
    const { input } = await scene.started(scene.styleId);
    assert.deepEqual(input.parameters, { epochs: null, learningRate: null, batchSize: null });
    const query = `StyleId = '${scene.styleId}' AND TaskId = '${input.taskId}' AND TrainPhase = 'queued' AND TrainEpoch = 0`;
    await eventually(async () => assert.equal((await scene.client.workflow.count(query)).count, 1));
  });

  it('expects the epochs that the pod will decide on, repeats counted', async () => {
    const { recipe } = scene.config.training;
    recipe.repeats = 2;
    try {
      await scene.startBridge();
      await scene.publish({ style_id: scene.styleId, image_urls: IMAGES, webhook_url: BACKEND });
      const { input } = await scene.started(scene.styleId);
      const context = { imageCount: IMAGES.length, mixedPrecisionDefault: 'no' } as const;
      assert.equal(input.expectedEpochs, trainingConfigFor(input.parameters, recipe, context).epochs);
      assert.equal(input.expectedEpochs, 170);
    } finally {
      delete recipe.repeats;
    }
  });

  it('moves a malformed message to the dead queue, whole and with the reason', async () => {
    await scene.startBridge();
    const content = Buffer.from('{"style_id": "forty-two"');
    const timestamp = 1_700_000_000;
    await scene.publish(content, {
      messageId: 'm-1',
      appId: 'backend',
      timestamp,
      expiration: '60000',
      headers: { trace: 't' },
    });
    const { content: moved, properties } = await scene.deadMessage();
    assert.deepEqual(moved, content);
    assert.equal(properties.headers?.['x-error-code'], 'INVALID_REQUEST');
    assert.match(String(properties.headers['x-error-message']), /not valid JSON/);
    assert.ok(Math.abs(Date.parse(String(properties.headers['x-first-seen'])) - Date.now()) < 60_000);
    assert.equal(properties.headers['trace'], 't');
    assert.deepEqual(
      [properties.messageId, properties.appId, properties.timestamp, properties.contentType, properties.deliveryMode],
      ['m-1', 'backend', timestamp, 'application/json', 2],
    );
    assert.equal(properties.expiration, undefined, 'the copy would be deleted');
    await scene.queueIsEmpty();
  });

  it('keeps going after messages that could stop it', async () => {
    await scene.startBridge();
    const copies = await scene.channel.assertQueue('', { exclusive: true });
    const poison: [unknown, Options.Publish][] = [
      [Buffer.alloc(2 * 1024 * 1024, 0x5b), {}],
      [Buffer.from([0xff, 0xfe, 0x00]), { contentType: 'application/octet-stream' }],
      [{ a: 1 }, { CC: copies.queue }],
      [{ a: 1 }, { headers: { big: 'x'.repeat(50_000), more: 'y'.repeat(14_000) } }],
      [{ a: 1 }, { userId: 'brushwork' }],
    ];
    for (const [message, options] of poison) await scene.publish(message, options);
    for (let count = 0; count < poison.length; count++) await scene.deadMessage();
    await scene.publish(scene.envelope(scene.styleId, 'after'));
    await scene.started(scene.styleId);
    await scene.queueIsEmpty();
    assert.equal((await scene.channel.checkQueue(copies.queue)).messageCount, 1, 'only the publisher’s own copy');
  });

  it('moves a message whose properties can not be written again: with a timestamp near 2^64 it circled for ever', async () => {
    await scene.startBridge();
    const { stream } = (scene.amqp as unknown as { connection: { stream: Writable } }).connection;
    const write = stream.write.bind(stream) as (frames: Buffer) => boolean;
    // The biggest number that amqplib writes, and on the wire the biggest there is.
    const timestamp = 2 ** 64 - 2048;
    stream.write = ((frames: Buffer) => {
      const at = frames.indexOf('fffffffffffff800', 'hex');
      return write(at < 0 ? frames : frames.fill(0xff, at, at + 8));
    }) as typeof stream.write;
    await scene.publish({ neither: 'shape' }, { timestamp, headers: { trace: 't' } });
    const { content, properties } = await scene.deadMessage();
    assert.equal(content.toString(), '{"neither":"shape"}');
    assert.equal(properties.headers?.['x-error-code'], 'INVALID_REQUEST');
    assert.equal(properties.timestamp, undefined);
    await scene.queueIsEmpty();
  });

  it('keeps a malformed message until the dead queue, deleted meanwhile, is there again', async () => {
    await scene.startBridge();
    await scene.channel.deleteQueue(DEAD_QUEUE);
    await scene.publish({ neither: 'shape' });
    const probe = await connect(scene.stack.amqpUrl);
    await eventually(async () => {
      const probeChannel = await probe.createChannel();
      probeChannel.on('error', () => undefined);
      assert.equal((await probeChannel.checkQueue(DEAD_QUEUE)).messageCount, 1);
      await probeChannel.close();
    });
    await probe.close();
    await scene.deadMessage();
    await scene.queueIsEmpty();
  });

  it('refuses backends that are not allowed', async () => {
    await scene.startBridge();
    await scene.publish({ ...scene.envelope(scene.styleId, 'task-a'), webhook_url: 'https://evil.example.com' });
    const { properties } = await scene.deadMessage();
    assert.equal(properties.headers?.['x-error-code'], 'BLOCKED_TARGET');
    await assert.rejects(
      scene.client.workflow.getHandle(workflowIdOf(scene.styleId)).describe(),
      WorkflowNotFoundError,
    );
  });

  it('has the backend told of a refused message that names a style, once, and of no other', async () => {
    const { lines } = await scene.startBridge();
    const faulty = { ...scene.envelope(scene.styleId, 'task-a'), task_id: 5 };
    for (const message of [faulty, faulty, { neither: 'shape' }]) await scene.publish(message);
    for (let count = 0; count < 3; count++) await scene.deadMessage();
    const workflowId = refusalIdOf(scene.styleId, Buffer.from(JSON.stringify(faulty)));
    const { events } = await scene.client.workflow.getHandle(workflowId).fetchHistory();
    const payload = events?.[0]?.workflowExecutionStartedEventAttributes?.input?.payloads?.[0]?.data;
    const input = JSON.parse(Buffer.from(payload ?? []).toString()) as RefusalInput;
    assert.deepEqual(
      [input.styleId, input.webhookOrigin, input.errorCode],
      [scene.styleId, BACKEND, 'INVALID_REQUEST'],
    );
    assert.match(input.errorMessage, /task_id/);
    const query = `WorkflowType = 'tellRefusal' AND WorkflowId = '${workflowId}'`;
    await eventually(async () => assert.equal((await scene.client.workflow.count(query)).count, 1));
    assert.equal(lines.join('').match(/backend is told/g)?.length, 2);
  });

  it('does not have the backend told of a refusal while the style trains: it would take it for the end', async () => {
    await scene.startBridge();
    await scene.publish(scene.envelope(scene.styleId, 'first'));
    await scene.started(scene.styleId);
    const others = [{ ...scene.envelope(scene.styleId, 'x'), task_id: 5 }, scene.envelope(scene.styleId, 'second')];
    for (const message of others) await scene.publish(message);
    for (const message of others) {
      await scene.deadMessage();
      const workflowId = refusalIdOf(scene.styleId, Buffer.from(JSON.stringify(message)));
      await assert.rejects(scene.client.workflow.getHandle(workflowId).describe(), WorkflowNotFoundError);
    }
  });

  it('refuses another task of a style in training, takes it once that has ended', async () => {
    await scene.startBridge();
    await scene.publish(scene.envelope(scene.styleId, 'first'));
    await scene.started(scene.styleId);
    await scene.publish(scene.envelope(scene.styleId, 'second'));
    const { properties } = await scene.deadMessage();
    assert.equal(properties.headers?.['x-error-code'], 'TRAINING_IN_PROGRESS');
    await scene.client.workflow.getHandle(workflowIdOf(scene.styleId)).terminate();
    await scene.publish(scene.envelope(scene.styleId, 'second'));
    await eventually(async () => assert.equal((await scene.started(scene.styleId)).taskId, 'second'));
  });

  it('two bridges make one workflow of a message that comes 40 times', async () => {
    await Promise.all([scene.startBridge(), scene.startBridge()]);
    await Promise.all(Array.from({ length: 40 }, () => scene.publish(scene.envelope(scene.styleId, 'same'))));
    await scene.started(scene.styleId);
    await scene.queueIsEmpty();
    assert.equal(await scene.runsOf(scene.styleId), 1);
    const log = () => scene.bridges.flatMap(({ lines }) => lines).join('');
    await eventually(async () => {
      const done = log().match(/duplicate message|training started/g)?.length;
      assert.equal(done, 40);
    });
    assert.equal((await scene.channel.checkQueue(DEAD_QUEUE)).messageCount, 0);
  });

  it('acknowledges a message of the job that ran last without running it again', async () => {
    const { lines } = await scene.startBridge();
    await scene.publish(scene.envelope(scene.styleId, 'ended'));
    await scene.started(scene.styleId);
    await scene.client.workflow.getHandle(workflowIdOf(scene.styleId)).terminate();
    await scene.publish(scene.envelope(scene.styleId, 'ended'));
    await eventually(async () => assert.match(lines.join(''), /duplicate message/));
    assert.equal(await scene.runsOf(scene.styleId), 1);
  });

  it('acknowledges a message of a job that ran before the last one, also from before jobs remembered others', async () => {
    const workflowId = workflowIdOf(scene.styleId);
    const query = `WorkflowId = '${workflowId}'`;
    for (const taskId of ['first', 'second']) {
      const options = { workflowId, taskQueue: 'nobody', memo: { taskId } };
      await (await scene.client.workflow.start('trainStyle', options)).terminate();
    }
    await eventually(async () => assert.equal((await scene.client.workflow.count(query)).count, 2));
    const { lines } = await scene.startBridge();
    await scene.publish(scene.envelope(scene.styleId, 'third'));
    await eventually(async () => assert.equal((await scene.started(scene.styleId)).taskId, 'third'));
    for (const taskId of ['first', 'second']) await scene.publish(scene.envelope(scene.styleId, taskId));
    await eventually(async () => assert.equal(lines.join('').match(/this task has run before/g)?.length, 2));
    assert.equal((await scene.channel.checkQueue(DEAD_QUEUE)).messageCount, 0);
    assert.equal(await scene.runsOf(scene.styleId), 3);
  });

  it('acknowledges a message of a known job also where its backend is not allowed any more', async () => {
    await scene.startBridge();
    await scene.publish(scene.envelope(scene.styleId, 'accepted'));
    await scene.started(scene.styleId);
    await scene.client.workflow.getHandle(workflowIdOf(scene.styleId)).terminate();
    await scene.bridges[0]?.stop();
    const backend = { ...scene.config.backend, allowedOrigins: ['https://elsewhere.example.com'] };
    const { lines } = await scene.startBridge({}, { ...scene.config, backend });
    await scene.publish(scene.envelope(scene.styleId, 'accepted'));
    await eventually(async () => assert.match(lines.join(''), /duplicate message|message refused/));
    assert.doesNotMatch(lines.join(''), /message refused/);
    await scene.queueIsEmpty();
    assert.equal((await scene.channel.checkQueue(DEAD_QUEUE)).messageCount, 0);
  });

  it('does not run a job twice that another bridge started and that ended after we looked', async () => {
    const logger = createLogger({ level: 'silent' as 'info' });
    const job = parseJobMessage(Buffer.from(JSON.stringify(scene.envelope(scene.styleId, 'quick'))));
    assert.equal(await new TrainingStarter(scene.client, scene.config, logger, 5000).start(job, false), 'started');
    await scene.client.workflow.getHandle(workflowIdOf(scene.styleId)).terminate();
    const blind = new Client({ connection: scene.connection });
    blind.workflow.getHandle = () => {
      throw new WorkflowNotFoundError('looked too early', workflowIdOf(scene.styleId), undefined);
    };
    await new TrainingStarter(blind, scene.config, logger, 5000).start(job, false);
    assert.equal(await scene.runsOf(scene.styleId), 1);
  });
});
