import { connect } from 'amqplib';

/** A job message in the envelope shape, as the backend sends it. */
export interface JobMessage {
  task_id: string;
  type: 'model_training';
  data: {
    style_id: number;
    images: string[];
    parameters?: { epochs?: number; learning_rate?: number; batch_size?: number };
    tags?: string[];
  };
  webhook_url: string;
  created_at?: string;
}

/**
 * Publishes a job as the backend's publisher (pika) does: queue declared durable and without arguments, persistent JSON
 * message through the default exchange.
 *
 * @param amqpUrl - broker with user and password
 * @param queue - queue of job messages
 * @param message - the job
 */
export async function publishJob(amqpUrl: string, queue: string, message: JobMessage): Promise<void> {
  const connection = await connect(amqpUrl);
  const channel = await connection.createConfirmChannel();
  await channel.assertQueue(queue, { durable: true });
  channel.sendToQueue(queue, Buffer.from(JSON.stringify(message)), {
    persistent: true,
    contentType: 'application/json',
  });
  await channel.waitForConfirms();
  await connection.close();
}
