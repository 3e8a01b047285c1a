import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'amqplib';
import type { ChannelModel, ConfirmChannel, ConsumeMessage } from 'amqplib';
import type { RabbitMqConfig } from '../common/config.ts';
import type { BrushworkError } from '../common/errors.ts';
import type { Logger } from '../common/logger.ts';
import { moveToDeadQueue } from './dead-letter.ts';

const CONNECT_TIMEOUT_MS = 10_000;
const CLOSE_TIMEOUT_MS = 5_000;

/** A dead connection is noticed after two to three of these, by both sides; the server's own 60 s would take two minutes. */
const HEARTBEAT_SECONDS = 15;

/** AMQP's reply code for a declaration that differs from what exists. */
const PRECONDITION_FAILED = 406;

/**
 * What becomes of a message: null when it is done, or the reason why it can't be processed. A handler that rejects
 * leaves the message in the queue and ends the session.
 */
export type MessageHandler = (message: ConsumeMessage, signal: AbortSignal) => Promise<BrushworkError | null>;

/** Why a session ended; `failed` with what the broker or the handler said. */
export type SessionEnd = { reason: 'stopped' } | { reason: 'failed'; error: Error };

/** What a session needs. */
export interface SessionOptions {
  rabbitmq: RabbitMqConfig;
  handle: MessageHandler;
  logger: Logger;
  /** Ends the session in an orderly way. */
  signal: AbortSignal;
  /** How long messages in hand may take after that. */
  drainMs: number;
  /** Called once messages flow. */
  onReady: () => void;
}

/**
 * Consumes the queue over one connection until the signal or the first thing that breaks: connection, channel, consumer
 * or handler. Messages that are not finished then go back to the queue with the connection.
 *
 * amqplib's own recovery is not used: it revives connections, but neither a closed channel nor a cancelled consumer, so
 * that two set-up paths would be needed where one does.
 *
 * @returns why it ended; never rejects
 */
export async function runSession(options: SessionOptions): Promise<SessionEnd> {
  const session = new Session(options);
  try {
    await session.open();
    return await session.ended();
  } catch (error) {
    return { reason: 'failed', error: error instanceof Error ? error : new Error(String(error)) };
  } finally {
    await session.close();
  }
}

class Session {
  readonly #options: SessionOptions;
  readonly #end = Promise.withResolvers<SessionEnd>();
  readonly #abort = new AbortController();
  readonly #work = new Set<Promise<void>>();
  #connection: ChannelModel | null = null;
  #channel: ConfirmChannel | null = null;

  constructor(options: SessionOptions) {
    this.#options = options;
  }

  async open(): Promise<void> {
    const { rabbitmq, logger, onReady } = this.#options;
    const url = new URL(rabbitmq.url);
    if (!url.searchParams.has('heartbeat')) url.searchParams.set('heartbeat', String(HEARTBEAT_SECONDS));
    const clientProperties = { connection_name: 'brushwork bridge' };
    const connection = await connect(url.href, { timeout: CONNECT_TIMEOUT_MS, clientProperties });
    this.#connection = connection;
    connection.on('error', (error) => this.#fail(error));
    connection.on('close', (error) => this.#fail(error ?? new Error('RabbitMQ closed the connection.')));
    connection.on('blocked', (reason) => logger.warn({ reason }, 'RabbitMQ takes no messages for now'));
    connection.on('unblocked', () => logger.info('RabbitMQ takes messages again'));
    const channel = await connection.createConfirmChannel();
    this.#channel = channel;
    channel.on('error', (error) => this.#fail(error));
    channel.on('close', () => this.#fail(new Error('RabbitMQ closed the channel.')));
    await declareQueue(channel, rabbitmq.queue);
    await declareQueue(channel, rabbitmq.deadQueue);
    await channel.prefetch(rabbitmq.prefetch);
    const { consumerTag } = await channel.consume(rabbitmq.queue, (message) => this.#onDelivery(channel, message), {
      noAck: false,
    });
    const { signal } = this.#options;
    const stop = () => {
      this.#stop(channel, consumerTag).catch((error: unknown) => this.#fail(error));
    };
    if (signal.aborted) stop();
    else signal.addEventListener('abort', stop, { once: true });
    void this.#end.promise.then(() => signal.removeEventListener('abort', stop));
    onReady();
  }

  ended(): Promise<SessionEnd> {
    return this.#end.promise;
  }

  /** Gives everything unfinished back to the queue. */
  async close(): Promise<void> {
    this.#abort.abort();
    // The channel first: amqplib queues what a channel sends, but writes the end of the connection at once, and would
    // overtake the last acknowledgements.
    if (this.#channel !== null) await closed(this.#channel);
    if (this.#connection !== null) await closed(this.#connection);
  }

  #onDelivery(channel: ConfirmChannel, message: ConsumeMessage | null): void {
    if (message === null) {
      this.#fail(
        new Error(`RabbitMQ cancelled the consumer: the queue ${this.#options.rabbitmq.queue} was deleted or moved.`),
      );
      return;
    }
    const work = this.#process(channel, message).finally(() => this.#work.delete(work));
    this.#work.add(work);
  }

  async #process(channel: ConfirmChannel, message: ConsumeMessage): Promise<void> {
    const { signal } = this.#abort;
    try {
      const refusal = await this.#options.handle(message, signal);
      // The delivery is void with its channel; the message comes again.
      if (signal.aborted) return;
      if (refusal !== null) await moveToDeadQueue(channel, this.#options.rabbitmq.deadQueue, message, refusal);
      channel.ack(message);
    } catch (error) {
      if (!signal.aborted) this.#fail(error);
    }
  }

  async #stop(channel: ConfirmChannel, consumerTag: string): Promise<void> {
    const drained = channel.cancel(consumerTag).then(() => Promise.all(this.#work));
    await Promise.race([drained, sleep(this.#options.drainMs, undefined, { ref: false })]);
    this.#end.resolve({ reason: 'stopped' });
  }

  #fail(error: unknown): void {
    this.#end.resolve({ reason: 'failed', error: error instanceof Error ? error : new Error(String(error)) });
  }
}

/** Closes what may be broken already, where nobody answers or closing fails, and does not let it hold us up. */
async function closed(part: ConfirmChannel | ChannelModel): Promise<void> {
  const gone = new Promise((resolve) => part.once('close', resolve));
  const closing = part.close().catch(() => undefined);
  await Promise.race([closing, gone, sleep(CLOSE_TIMEOUT_MS, undefined, { ref: false })]);
}

/** Declares a queue with no arguments at all, exactly like the publisher: any difference would fail for one of the two. */
async function declareQueue(channel: ConfirmChannel, queue: string): Promise<void> {
  try {
    await channel.assertQueue(queue, { durable: true });
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error) || error.code !== PRECONDITION_FAILED) throw error;
    throw new Error(
      `The queue ${queue} exists with other arguments than "durable" (${error.message}): delete it when it is empty, or set RABBITMQ_QUEUE to another one.`,
      { cause: error },
    );
  }
}
