import { connect } from 'amqplib';
import type { GetMessage } from 'amqplib';
import type { RabbitMqConfig } from '../common/config.ts';
import { reasonOf } from '../common/logger.ts';
import { publishCopy } from './dead-letter.ts';
import { addresseeOf } from './envelope.ts';

/** Why a message was refused: gone once it is on its way again. */
const REFUSAL_HEADERS = new Set(['x-error-code', 'x-error-message', 'x-dead-letter-id']);

/** Thrown when there is no connection to RabbitMQ: says where it was looked for, why, and what to check. */
export class RabbitMqUnreachableError extends Error {}

/** A message of the dead queue. */
export interface DeadLetter {
  errorCode: string;
  errorMessage: string;
  /** ISO 8601, or empty where the bridge has not put it there. */
  firstSeen: string;
  /** Null where it names none. */
  styleId: number | null;
}

/**
 * Looks through the dead queue, oldest first, and moves messages back to the queue of jobs. Each is published and
 * confirmed before it leaves the dead queue, so a crash in between makes a duplicate at worst, which the bridge knows.
 *
 * @param rabbitmq - where both queues are
 * @param isWanted - chooses what is moved; the rest stays as it is
 * @returns everything that was there, and how much of it was moved
 * @throws RabbitMqUnreachableError when RabbitMQ does not let us in
 * @throws Error when it does not take a message
 */
export async function moveDeadLetters(
  rabbitmq: RabbitMqConfig,
  isWanted: (letter: DeadLetter) => boolean,
): Promise<{ letters: DeadLetter[]; movedCount: number }> {
  const connection = await connect(rabbitmq.url).catch((error: unknown) => {
    throw unreachable(rabbitmq.url, error);
  });
  try {
    const channel = await connection.createConfirmChannel();
    await channel.assertQueue(rabbitmq.queue, { durable: true });
    const { messageCount } = await channel.assertQueue(rabbitmq.deadQueue, { durable: true });
    const letters: DeadLetter[] = [];
    let movedCount = 0;
    // No more than were there: what is refused again comes back behind them.
    while (letters.length < messageCount) {
      const message = await channel.get(rabbitmq.deadQueue);
      if (message === false) break;
      const letter = letterOf(message);
      letters.push(letter);
      if (!isWanted(letter)) continue;
      const headers = Object.entries(message.properties.headers ?? {});
      const kept = Object.fromEntries(headers.filter(([name]) => !REFUSAL_HEADERS.has(name)));
      await publishCopy(channel, rabbitmq.queue, message, kept);
      channel.ack(message);
      movedCount += 1;
    }
    // Unacknowledged messages go back to where they were.
    await channel.close();
    return { letters, movedCount };
  } finally {
    await connection.close();
  }
}

function unreachable(url: string, cause: unknown): RabbitMqUnreachableError {
  // Where a name has several addresses, the message is empty and the code says it.
  const reason = reasonOf(cause) || String((cause as NodeJS.ErrnoException).code);
  const variables = /ACCESS_REFUSED|ACCESS-REFUSED/.test(reason)
    ? 'Check RABBITMQ_USER and RABBITMQ_PASS'
    : 'Check that it runs, and RABBITMQ_HOST and RABBITMQ_PORT';
  return new RabbitMqUnreachableError(
    `RabbitMQ at ${new URL(url).host} can't be reached: ${reason}. ${variables} (or RABBITMQ_URL).`,
    { cause },
  );
}

function letterOf({ content, properties }: GetMessage): DeadLetter {
  const text = (name: string): string => {
    const value: unknown = properties.headers?.[name];
    return typeof value === 'string' ? value : '';
  };
  return {
    errorCode: text('x-error-code'),
    errorMessage: text('x-error-message'),
    firstSeen: text('x-first-seen'),
    styleId: addresseeOf(content)?.styleId ?? null,
  };
}
