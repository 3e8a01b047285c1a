import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client, Connection } from '@temporalio/client';
import { connect } from 'amqplib';
import type { ChannelModel, ConfirmChannel, GetMessage, Options } from 'amqplib';
import { runBridge } from '../../../bridge/run-bridge.ts';
import type { BridgeTiming } from '../../../bridge/run-bridge.ts';
import { workflowIdOf } from '../../../common/style-trainings.ts';
import { loadConfig } from '../../../common/config.ts';
import type { Config } from '../../../common/config.ts';
import { createLogger } from '../../../common/logger.ts';
import type { TrainStyleInput } from '../../../common/types.ts';
import { startStack } from '../../../scripts/stack/stack.ts';
import type { Stack } from '../../../scripts/stack/stack.ts';
import { eventually } from './until.ts';

export const QUEUE = 'model_training';
export const DEAD_QUEUE = 'model_training.dead';
export const BACKEND = 'https://api.example.com';
export const IMAGES = Array.from({ length: 12 }, (_, index) => `s3://pictures/${index}.jpg`);

/** What all tests of a file share. */
interface Parts {
  directory: string;
  stack: Stack;
  config: Config;
  connection: Connection;
}

async function startParts(): Promise<Parts> {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'brushwork-bridge-'));
  const stack = await startStack({ directory, parts: ['temporal', 'rabbitmq'] });
  const config = loadConfig({ env: { ...stack.environment(), BACKEND_API_URL: BACKEND }, roles: ['bridge'] });
  const connection = await Connection.connect({ address: stack.temporalAddress });
  return { directory, stack, config, connection };
}

/** As the backend's publisher does: pika's `queue_declare(queue, durable=True)`. */
async function openChannel(stack: Stack): Promise<{ amqp: ChannelModel; channel: ConfirmChannel }> {
  const amqp = await connect(stack.amqpUrl);
  amqp.on('error', () => undefined);
  const channel = await amqp.createConfirmChannel();
  channel.on('error', () => undefined);
  await channel.assertQueue(QUEUE, { durable: true });
  return { amqp, channel };
}

/** One test's bridges, its publisher, and styles that no other test uses. */
export class BridgeScene {
  readonly stack: Stack;
  readonly config: Config;
  readonly connection: Connection;
  readonly client: Client;
  readonly styleId: number;
  readonly bridges: { stop: () => Promise<void>; lines: string[] }[] = [];
  amqp: ChannelModel;
  channel: ConfirmChannel;

  private constructor(parts: Parts, styleId: number, publisher: { amqp: ChannelModel; channel: ConfirmChannel }) {
    this.stack = parts.stack;
    this.config = parts.config;
    this.connection = parts.connection;
    this.client = new Client({ connection: parts.connection });
    this.styleId = styleId;
    this.amqp = publisher.amqp;
    this.channel = publisher.channel;
  }

  /** Opens a publisher; `styleId` and the nine after it are the test's own. */
  static async open(parts: Parts, styleId: number): Promise<BridgeScene> {
    return new BridgeScene(parts, styleId, await openChannel(parts.stack));
  }

  /** Opens the publisher anew. */
  async openPublisher(): Promise<void> {
    ({ amqp: this.amqp, channel: this.channel } = await openChannel(this.stack));
  }

  async publish(message: unknown, options: Options.Publish = {}): Promise<void> {
    const content = Buffer.isBuffer(message) ? message : Buffer.from(JSON.stringify(message));
    this.channel.sendToQueue(QUEUE, content, { persistent: true, contentType: 'application/json', ...options });
    await this.channel.waitForConfirms();
  }

  /** Starts a bridge and waits until it takes messages. */
  async startBridge(timing: Partial<BridgeTiming> = {}, config = this.config): Promise<{ lines: string[] }> {
    const abort = new AbortController();
    const lines: string[] = [];
    const logger = createLogger({ level: 'info', destination: { write: (line) => void lines.push(line) } });
    const ready = Promise.withResolvers<void>();
    const options = { longestPauseMs: 500, callMs: 1000, ...timing };
    const done = runBridge(config, { logger, signal: abort.signal, timing: options, onReady: () => ready.resolve() });
    this.bridges.push({
      lines,
      stop: async () => {
        abort.abort();
        await done;
      },
    });
    await Promise.race([ready.promise, done]);
    return { lines };
  }

  envelope(styleId: number, taskId: string, data: object = {}) {
    return {
      task_id: taskId,
      type: 'model_training',
      data: { style_id: styleId, images: IMAGES, ...data },
      webhook_url: `${BACKEND}/api/webhooks/training/${styleId}/status`,
    };
  }

  async started(styleId: number): Promise<{ input: TrainStyleInput; taskId: unknown; summary: unknown }> {
    return eventually(async () => {
      const handle = this.client.workflow.getHandle(workflowIdOf(styleId));
      const description = await handle.describe();
      const { events } = await handle.fetchHistory();
      const payload = events?.[0]?.workflowExecutionStartedEventAttributes?.input?.payloads?.[0]?.data;
      const input = JSON.parse(Buffer.from(payload ?? []).toString()) as TrainStyleInput;
      return { input, taskId: description.memo?.['taskId'], summary: await description.staticSummary() };
    });
  }

  async runsOf(styleId: number): Promise<number> {
    // Visibility lags behind: wait until it shows what is certain to exist, and a little more.
    const count = async () => (await this.client.workflow.count(`WorkflowId = '${workflowIdOf(styleId)}'`)).count;
    await eventually(async () => assert.ok((await count()) > 0));
    await sleep(1000);
    return count();
  }

  async deadMessage(): Promise<GetMessage> {
    return eventually(async () => {
      const message = await this.channel.get(DEAD_QUEUE, { noAck: true });
      assert.ok(message, 'the dead queue is empty');
      return message;
    });
  }

  async queueIsEmpty(): Promise<void> {
    await eventually(async () => {
      assert.equal((await this.channel.checkQueue(QUEUE)).messageCount, 0, 'messages are left');
    });
  }

  async close(): Promise<void> {
    await Promise.all(this.bridges.map((bridge) => bridge.stop()));
    await this.channel.purgeQueue(QUEUE).catch(() => undefined);
    await this.channel.purgeQueue(DEAD_QUEUE).catch(() => undefined);
    await this.amqp.close().catch(() => undefined);
  }
}

/** Starts Temporal and RabbitMQ for the tests of a `describe`, and hands a scene of its own to each of them. */
export function bridgeSceneForEachTest(assign: (scene: BridgeScene) => void): void {
  let parts: Parts;
  let scene: BridgeScene;
  let nextStyleId = 1;

  before(async () => {
    parts = await startParts();
  });
  after(async () => {
    await parts.connection.close();
    await parts.stack.stop();
    rmSync(parts.directory, { recursive: true });
  });
  beforeEach(async () => {
    nextStyleId += 10;
    scene = await BridgeScene.open(parts, nextStyleId);
    assign(scene);
  });
  afterEach(() => scene.close());
}
