import { randomUUID } from 'node:crypto';
import type { ConfirmChannel, ConsumeMessage, Message, MessageProperties, Options } from 'amqplib';
import type { BrushworkError } from '../common/errors.ts';

const CONFIRM_TIMEOUT_MS = 30_000;
const MAX_ERROR_CHARACTERS = 1000;

/** Headers that would make the broker route the copy to other queues as well. */
const ROUTING_HEADERS = new Set(['CC', 'BCC']);

/** Names this one publish, so that a copy that the broker hands back can be told from others. */
const ID_HEADER = 'x-dead-letter-id';

/** When a message came into the dead queue for the first time (milliseconds since 1970); null where it never was there. */
export function firstSeenAtMs({ properties }: Message): number | null {
  const firstSeen: unknown = properties.headers?.['x-first-seen'];
  const timeMs = typeof firstSeen === 'string' ? Date.parse(firstSeen) : NaN;
  return Number.isNaN(timeMs) ? null : timeMs;
}

/**
 * Puts a copy of a message that can't be processed into the dead queue and waits until the broker has it on record. Only
 * then may the message be acknowledged.
 *
 * @param channel - in confirm mode
 * @param deadQueue - declared by the caller
 * @param message - as delivered
 * @param error - why it is refused; goes into the headers `x-error-code` and `x-error-message`
 * @throws Error when the broker did not take the copy
 */
export async function moveToDeadQueue(
  channel: ConfirmChannel,
  deadQueue: string,
  message: ConsumeMessage,
  error: BrushworkError,
): Promise<void> {
  const id = randomUUID();
  const original = (message.properties.headers ?? {}) as Record<string, unknown>;
  const ours = {
    'x-error-code': error.code,
    'x-error-message': error.message.slice(0, MAX_ERROR_CHARACTERS),
    'x-first-seen': typeof original['x-first-seen'] === 'string' ? original['x-first-seen'] : new Date().toISOString(),
    [ID_HEADER]: id,
  };
  const kept = Object.fromEntries(Object.entries(original).filter(([name]) => !ROUTING_HEADERS.has(name)));
  let isReturned = false;
  // The broker returns what it cannot route before it confirms it.
  const onReturn = (returned: Message) => {
    if (returned.properties.headers?.[ID_HEADER] === id) isReturned = true;
  };
  channel.on('return', onReturn);
  try {
    await publishCopy(channel, deadQueue, message, { ...kept, ...ours }).catch((reason: unknown) => {
      // Foreign headers and properties that can't be written again (a timestamp near 2^64 is read as a number that is
      // too big) must not keep the message circling.
      if (!(reason instanceof UnwritableError)) throw reason;
      return publishCopy(channel, deadQueue, { content: message.content, properties: {} }, ours);
    });
    if (isReturned) throw new Error(`The queue ${deadQueue} does not exist any more.`);
  } finally {
    channel.off('return', onReturn);
  }
}

class UnwritableError extends Error {}

/**
 * Publishes a message once more and waits until the broker has it on record.
 *
 * @param channel - in confirm mode
 * @param queue - where to; the broker hands it back when there is none
 * @param message - as delivered
 * @param headers - instead of its own
 * @throws UnwritableError when these or its properties can't be written, Error when the broker does not take it
 */
export async function publishCopy(
  channel: ConfirmChannel,
  queue: string,
  { content, properties }: { content: Buffer; properties: Partial<MessageProperties> },
  headers: Record<string, unknown>,
): Promise<void> {
  const options: Options.Publish = {
    headers,
    persistent: true,
    mandatory: true,
    // Not kept: expiration would delete the copy, and a user id that is not ours makes the broker close the channel.
    ...defined({
      contentType: properties.contentType as unknown,
      contentEncoding: properties.contentEncoding as unknown,
      correlationId: properties.correlationId as unknown,
      messageId: properties.messageId as unknown,
      timestamp: properties.timestamp as unknown,
      type: properties.type as unknown,
      appId: properties.appId as unknown,
      priority: properties.priority as unknown,
      replyTo: properties.replyTo as unknown,
    }),
  };
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => {
      reject(new Error(`The broker did not confirm a message to ${queue} within ${CONFIRM_TIMEOUT_MS} ms.`));
    }, CONFIRM_TIMEOUT_MS);
    const confirmed = (error: unknown) => {
      clearTimeout(timer);
      if (error === null || error === undefined) resolve();
      else reject(error instanceof Error ? error : new Error(`The broker refused a message to ${queue}.`));
    };
    try {
      channel.sendToQueue(queue, content, options, confirmed);
    } catch (error) {
      clearTimeout(timer);
      const isClosed = error instanceof Error && error.name === 'IllegalOperationError';
      reject(isClosed ? error : new UnwritableError('The headers or properties can not be written.', { cause: error }));
    }
  });
}

function defined(values: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
}
