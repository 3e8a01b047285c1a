import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, Connection, WorkflowNotFoundError } from '@temporalio/client';
import { connect } from 'amqplib';
import type { ChannelModel, ConfirmChannel, GetMessage, Options } from 'amqplib';
import { parseJobMessage } from '../../bridge/envelope.ts';
import { runBridge } from '../../bridge/run-bridge.ts';
import type { BridgeTiming } from '../../bridge/run-bridge.ts';
import { TrainingStarter, workflowIdOf } from '../../bridge/start-training.ts';
import { loadConfig } from '../../common/config.ts';
import type { Config } from '../../common/config.ts';
import { createLogger } from '../../common/logger.ts';
import type { TrainStyleInput } from '../../common/types.ts';
import { startStack } from '../../scripts/stack/stack.ts';
import type { Stack } from '../../scripts/stack/stack.ts';

const QUEUE = 'model_training';
const DEAD_QUEUE = 'model_training.dead';
const BACKEND = 'https://api.example.com';
const IMAGES = Array.from({ length: 12 }, (_, index) => `s3://pictures/${index}.jpg`);

/** Tries until it passes, or fails with the last reason. */
async function eventually<T>(check: () => Promise<T>, timeoutMs = 30_000): Promise<T> {
  const deadlineMs = Date.now() + timeoutMs;
  for (;;) {
    try {
      return await check();
    } catch (error) {
      if (Date.now() > deadlineMs) throw error;
      await sleep(100);
    }
  }
}

describe('bridge', () => {
  let directory: string;
  let stack: Stack;
  let config: Config;
  let connection: Connection;
  let client: Client;
  let amqp: ChannelModel;
  let channel: ConfirmChannel;
  let bridges: { stop: () => Promise<void>; lines: string[] }[];
  let nextStyleId = 1;

  /** As the backend's publisher does: pika's `queue_declare(queue, durable=True)`, then `basic_publish`. */
  async function openPublisher(): Promise<void> {
    amqp = await connect(stack.amqpUrl);
    amqp.on('error', () => undefined);
    channel = await amqp.createConfirmChannel();
    channel.on('error', () => undefined);
    await channel.assertQueue(QUEUE, { durable: true });
  }

  async function publish(message: unknown, options: Options.Publish = {}): Promise<void> {
    const content = Buffer.isBuffer(message) ? message : Buffer.from(JSON.stringify(message));
    channel.sendToQueue(QUEUE, content, { persistent: true, contentType: 'application/json', ...options });
    await channel.waitForConfirms();
  }

  async function startBridge(timing: Partial<BridgeTiming> = {}, ofConfig = config): Promise<{ lines: string[] }> {
    const abort = new AbortController();
    const lines: string[] = [];
    const logger = createLogger({ level: 'info', destination: { write: (line) => void lines.push(line) } });
    const ready = Promise.withResolvers<void>();
    const options = { longestPauseMs: 500, callMs: 1000, ...timing };
    const done = runBridge(ofConfig, { logger, signal: abort.signal, timing: options, onReady: () => ready.resolve() });
    bridges.push({
      lines,
      stop: async () => {
        abort.abort();
        await done;
      },
    });
    await Promise.race([ready.promise, done]);
    return { lines };
  }

  const envelope = (styleId: number, taskId: string, data: object = {}) => ({
    task_id: taskId,
    type: 'model_training',
    data: { style_id: styleId, images: IMAGES, ...data },
    webhook_url: `${BACKEND}/api/webhooks/training/${styleId}/status`,
  });

  async function started(styleId: number): Promise<{ input: TrainStyleInput; taskId: unknown; summary: unknown }> {
    return eventually(async () => {
      const handle = client.workflow.getHandle(workflowIdOf(styleId));
      const description = await handle.describe();
      const { events } = await handle.fetchHistory();
      const payload = events?.[0]?.workflowExecutionStartedEventAttributes?.input?.payloads?.[0]?.data;
      const input = JSON.parse(Buffer.from(payload ?? []).toString()) as TrainStyleInput;
      return { input, taskId: description.memo?.['taskId'], summary: await description.staticSummary() };
    });
  }

  async function runsOf(styleId: number): Promise<number> {
    // Visibility lags behind: wait until it shows what is certain to exist, and a little more.
    const count = async () => (await client.workflow.count(`WorkflowId = '${workflowIdOf(styleId)}'`)).count;
    await eventually(async () => assert.ok((await count()) > 0));
    await sleep(1000);
    return count();
  }

  async function deadMessage(): Promise<GetMessage> {
    return eventually(async () => {
      const message = await channel.get(DEAD_QUEUE, { noAck: true });
      assert.ok(message, 'the dead queue is empty');
      return message;
    });
  }

  const queueIsEmpty = () =>
    eventually(async () => assert.equal((await channel.checkQueue(QUEUE)).messageCount, 0, 'messages are left'));

  before(async () => {
    directory = mkdtempSync(path.join(os.tmpdir(), 'brushwork-bridge-'));
    stack = await startStack({ directory, parts: ['temporal', 'rabbitmq'] });
    config = loadConfig({ env: { ...stack.environment(), BACKEND_API_URL: BACKEND }, roles: ['bridge'] });
    connection = await Connection.connect({ address: stack.temporalAddress });
    client = new Client({ connection });
  });

  after(async () => {
    await connection.close();
    await stack.stop();
    rmSync(directory, { recursive: true });
  });

  beforeEach(async () => {
    bridges = [];
    nextStyleId += 10;
    await openPublisher();
  });

  afterEach(async () => {
    await Promise.all(bridges.map((bridge) => bridge.stop()));
    await channel.purgeQueue(QUEUE).catch(() => undefined);
    await channel.purgeQueue(DEAD_QUEUE).catch(() => undefined);
    await amqp.close().catch(() => undefined);
  });

  it('starts a workflow for an envelope', async () => {
    await startBridge();
    const styleId = nextStyleId;
    const data = { parameters: { epochs: 200, learning_rate: 5e-5, batch_size: 2 }, tags: ['ink', 'wash'] };
    await publish(envelope(styleId, 'task-a', data));
    const { input, taskId, summary } = await started(styleId);
    const { settings, ...job } = input;
    assert.deepEqual(job, {
      styleId,
      taskId: 'task-a',
      images: IMAGES,
      tags: ['ink', 'wash'],
      parameters: { epochs: 200, learningRate: 5e-5, batchSize: 2 },
      webhookOrigin: BACKEND,
    });
    assert.deepEqual(settings.limits, config.limits);
    assert.equal(settings.searchAttributes, true);
    assert.equal(taskId, 'task-a');
    assert.equal(summary, `style ${styleId} · 12 images · 200 epochs`);
    await queueIsEmpty();
  });

  it('starts a workflow for a flat message, findable by its search attributes', async () => {
    await startBridge();
    await publish({ style_id: nextStyleId, image_urls: IMAGES, webhook_url: BACKEND });
    const { input } = await started(nextStyleId);
    assert.deepEqual(input.parameters, { epochs: null, learningRate: null, batchSize: null });
    const query = `StyleId = '${nextStyleId}' AND TaskId = '${input.taskId}' AND TrainPhase = 'queued' AND TrainEpoch = 0`;
    await eventually(async () => assert.equal((await client.workflow.count(query)).count, 1));
  });

  it('moves a malformed message to the dead queue, whole and with the reason', async () => {
    await startBridge();
    const content = Buffer.from('{"style_id": "forty-two"');
    const timestamp = 1_700_000_000;
    await publish(content, {
      messageId: 'm-1',
      appId: 'backend',
      timestamp,
      expiration: '60000',
      headers: { trace: 't' },
    });
    const { content: moved, properties } = await deadMessage();
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
    await queueIsEmpty();
  });

  it('keeps going after messages that could stop it', async () => {
    await startBridge();
    const copies = await channel.assertQueue('', { exclusive: true });
    const poison: [unknown, Options.Publish][] = [
      [Buffer.alloc(2 * 1024 * 1024, 0x5b), {}],
      [Buffer.from([0xff, 0xfe, 0x00]), { contentType: 'application/octet-stream' }],
      [{ a: 1 }, { CC: copies.queue }],
      [{ a: 1 }, { headers: { big: 'x'.repeat(50_000), more: 'y'.repeat(14_000) } }],
      [{ a: 1 }, { userId: 'brushwork' }],
    ];
    for (const [message, options] of poison) await publish(message, options);
    for (let count = 0; count < poison.length; count++) await deadMessage();
    await publish(envelope(nextStyleId, 'after'));
    await started(nextStyleId);
    await queueIsEmpty();
    assert.equal((await channel.checkQueue(copies.queue)).messageCount, 1, 'only the publisher’s own copy');
  });

  it('keeps a malformed message until the dead queue, deleted meanwhile, is there again', async () => {
    await startBridge();
    await channel.deleteQueue(DEAD_QUEUE);
    await publish({ neither: 'shape' });
    const probe = await connect(stack.amqpUrl);
    await eventually(async () => {
      const probeChannel = await probe.createChannel();
      probeChannel.on('error', () => undefined);
      assert.equal((await probeChannel.checkQueue(DEAD_QUEUE)).messageCount, 1);
      await probeChannel.close();
    });
    await probe.close();
    await deadMessage();
    await queueIsEmpty();
  });

  it('refuses backends that are not allowed', async () => {
    await startBridge();
    await publish({ ...envelope(nextStyleId, 'task-a'), webhook_url: 'https://evil.example.com' });
    const { properties } = await deadMessage();
    assert.equal(properties.headers?.['x-error-code'], 'BLOCKED_TARGET');
    await assert.rejects(client.workflow.getHandle(workflowIdOf(nextStyleId)).describe(), WorkflowNotFoundError);
  });

  it('refuses another task of a style in training, takes it once that has ended', async () => {
    await startBridge();
    await publish(envelope(nextStyleId, 'first'));
    await started(nextStyleId);
    await publish(envelope(nextStyleId, 'second'));
    const { properties } = await deadMessage();
    assert.equal(properties.headers?.['x-error-code'], 'TRAINING_IN_PROGRESS');
    await client.workflow.getHandle(workflowIdOf(nextStyleId)).terminate();
    await publish(envelope(nextStyleId, 'second'));
    await eventually(async () => assert.equal((await started(nextStyleId)).taskId, 'second'));
  });

  it('two bridges make one workflow of a message that comes 40 times', async () => {
    await Promise.all([startBridge(), startBridge()]);
    await Promise.all(Array.from({ length: 40 }, () => publish(envelope(nextStyleId, 'same'))));
    await started(nextStyleId);
    await queueIsEmpty();
    assert.equal(await runsOf(nextStyleId), 1);
    const log = () => bridges.flatMap(({ lines }) => lines).join('');
    await eventually(async () => {
      const done = log().match(/duplicate message|training started/g)?.length;
      assert.equal(done, 40);
    });
    assert.equal((await channel.checkQueue(DEAD_QUEUE)).messageCount, 0);
  });

  it('acknowledges a message of the job that ran last without running it again', async () => {
    const { lines } = await startBridge();
    await publish(envelope(nextStyleId, 'ended'));
    await started(nextStyleId);
    await client.workflow.getHandle(workflowIdOf(nextStyleId)).terminate();
    await publish(envelope(nextStyleId, 'ended'));
    await eventually(async () => assert.match(lines.join(''), /duplicate message/));
    assert.equal(await runsOf(nextStyleId), 1);
  });

  it('does not run a job twice that another bridge started and that ended after we looked', async () => {
    const logger = createLogger({ level: 'silent' as 'info' });
    const job = parseJobMessage(Buffer.from(JSON.stringify(envelope(nextStyleId, 'quick'))));
    assert.equal(await new TrainingStarter(client, config, logger, 5000).start(job), 'started');
    await client.workflow.getHandle(workflowIdOf(nextStyleId)).terminate();
    const blind = new Client({ connection });
    blind.workflow.getHandle = () => {
      throw new WorkflowNotFoundError('looked too early', workflowIdOf(nextStyleId), undefined);
    };
    await new TrainingStarter(blind, config, logger, 5000).start(job);
    assert.equal(await runsOf(nextStyleId), 1);
  });

  it('stops in an orderly way: takes no more messages and leaves them in the queue', async () => {
    await startBridge();
    await publish(envelope(nextStyleId, 'before'));
    await started(nextStyleId);
    const startedAtMs = Date.now();
    await bridges[0]?.stop();
    assert.ok(Date.now() - startedAtMs < 5000);
    await publish(envelope(nextStyleId + 1, 'after'));
    const { messageCount, consumerCount } = await channel.checkQueue(QUEUE);
    assert.deepEqual([messageCount, consumerCount], [1, 0]);
  });

  it('takes up again after its consumer was cancelled', async () => {
    await startBridge();
    await channel.deleteQueue(QUEUE);
    await eventually(async () => {
      const probe = await amqp.createChannel();
      probe.on('error', () => undefined);
      assert.equal((await probe.checkQueue(QUEUE)).consumerCount, 1);
      await probe.close();
    });
    await publish(envelope(nextStyleId, 'task-a'));
    await started(nextStyleId);
  });

  it('says what to do about a queue that was declared with arguments, and goes on once that is done', async () => {
    const queue = 'declared_otherwise';
    await channel.assertQueue(queue, { durable: true, arguments: { 'x-max-length': 10 } });
    const env = { ...stack.environment(), BACKEND_API_URL: BACKEND, RABBITMQ_QUEUE: queue };
    const bridge = startBridge({}, loadConfig({ env, roles: ['bridge'] }));
    await eventually(async () => {
      assert.match(bridges[0]?.lines.join('') ?? '', /declared_otherwise exists with other arguments/);
    });
    await channel.deleteQueue(queue);
    await bridge;
  });

  it('outlives a restart of RabbitMQ', async () => {
    const { lines } = await startBridge();
    await amqp.close();
    await stack.parts.rabbitmq.restart();
    await eventually(async () => assert.equal(lines.join('').match(/waiting for job messages/g)?.length, 2));
    await openPublisher();
    await publish(envelope(nextStyleId, 'task-a'));
    await started(nextStyleId);
    await queueIsEmpty();
  });

  it('holds a message while Temporal is down, gives it back after a while, and starts it when Temporal is up', async () => {
    const { lines } = await startBridge({ holdMs: 4000 });
    await stack.parts.temporal.stop();
    await publish(envelope(nextStyleId, 'patient'));
    await eventually(async () => assert.match(lines.join(''), /message held: trying again/));
    const held = await channel.checkQueue(QUEUE);
    assert.deepEqual([held.messageCount, held.consumerCount], [0, 1], 'held, not acknowledged');
    await eventually(async () => {
      const given = await channel.checkQueue(QUEUE);
      assert.deepEqual([given.messageCount, given.consumerCount], [1, 0], 'given back, and nothing more is taken');
    });
    await stack.parts.temporal.start();
    const { taskId } = await started(nextStyleId);
    assert.equal(taskId, 'patient');
    await queueIsEmpty();
  });

  it('loses nothing when it is stopped while Temporal is down', async () => {
    await startBridge({ drainMs: 500 });
    await stack.parts.temporal.stop();
    await publish(envelope(nextStyleId, 'kept'));
    await eventually(async () => assert.equal((await channel.checkQueue(QUEUE)).messageCount, 0));
    await bridges[0]?.stop();
    assert.equal((await channel.checkQueue(QUEUE)).messageCount, 1);
    await stack.parts.temporal.start();
  });

  it('starts jobs all the same where a search attribute is not registered', async () => {
    const { operatorService } = connection;
    await operatorService.removeSearchAttributes({ namespace: 'default', searchAttributes: ['GpuHost'] });
    const { lines } = await startBridge();
    await publish(envelope(nextStyleId, 'one'));
    await publish(envelope(nextStyleId + 1, 'two'));
    assert.equal((await started(nextStyleId)).input.settings.searchAttributes, false);
    assert.equal((await started(nextStyleId + 1)).input.settings.searchAttributes, false);
    assert.equal(lines.join('').match(/does not know our search attributes/g)?.length, 1);
  });
});
