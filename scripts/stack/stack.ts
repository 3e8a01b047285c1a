import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { tctlPath } from '../setup/tctl.mjs';
import { temporalPath } from '../setup/temporal.mjs';
import type { PartControl } from './part.ts';
import { freePorts } from './ports.ts';
import { rabbitmqNode } from './rabbitmq-node.ts';
import { s3Server, type S3Access } from './s3-server.ts';
import { temporalServer } from './temporal-server.ts';

/** What the service talks to, without the backend. */
export type PartName = 'temporal' | 'rabbitmq' | 's3';

/** What {@link startStack} needs. */
export interface StackOptions {
  /** Private to this stack: data, logs and keys of all parts. The caller makes it and removes it. */
  directory: string;
  /** Default: all of them. */
  parts?: PartName[];
  /** Buckets that are made. The first is the one for weights and checkpoints. Default: `brushwork`. */
  buckets?: string[];
}

/** The real parts that the service talks to, running on private ports. */
export interface Stack {
  directory: string;
  /** Host and port of the Temporal server. */
  temporalAddress: string;
  /** Base URL of the Temporal Web UI. */
  webUiUrl: string;
  /** With user and password. */
  amqpUrl: string;
  s3: S3Access;
  buckets: string[];
  /** The `temporal` program. */
  temporalCliPath: string;
  /** The `tctl` program; there only after the set-up for the tests. */
  tctlPath: string;
  /** Each part by itself, to break it and mend it. Parts that were not asked for throw when started. */
  parts: Record<PartName, PartControl>;
  /** The variables that connect a Brushwork process to this stack; those of the backend are the caller's to add. */
  environment(): Record<string, string>;
  /** Ends every part, in any state. */
  stop(): Promise<void>;
}

const REGION = 'ap-northeast-2';

/**
 * Starts the real parts side by side and waits until each of them works. They end with {@link Stack.stop}, and at the
 * latest with this process.
 *
 * @throws Error with the end of its log when a part does not start; the others are stopped
 */
export async function startStack(options: StackOptions): Promise<Stack> {
  const { directory, parts: wanted = ['temporal', 'rabbitmq', 's3'], buckets = ['brushwork'] } = options;
  mkdirSync(directory, { recursive: true });
  const [port = 0, uiPort = 0, amqpPort = 0, distributionPort = 0, epmdPort = 0, s3Port = 0] = await freePorts(6);
  const user = 'brushwork';
  const password = randomBytes(16).toString('hex');
  const s3: S3Access = {
    endpoint: `http://127.0.0.1:${s3Port}`,
    region: REGION,
    accessKeyId: randomBytes(10).toString('hex').toUpperCase(),
    secretAccessKey: randomBytes(20).toString('hex'),
  };
  const parts: Record<PartName, PartControl> = {
    temporal: temporalServer({ directory, port, uiPort }),
    rabbitmq: rabbitmqNode({ directory, port: amqpPort, distributionPort, epmdPort, user, password }),
    s3: s3Server(directory, s3Port, s3, buckets),
  };
  const stop = async (): Promise<void> => {
    await Promise.all(Object.values(parts).map((part) => part.stop()));
  };
  const started = await Promise.allSettled(wanted.map((name) => parts[name].start()));
  const failures = started.flatMap((result) => (result.status === 'rejected' ? [result.reason as Error] : []));
  if (failures.length > 0) {
    await stop();
    throw new AggregateError(failures, failures.map((failure) => failure.message).join('\n'));
  }
  const temporalAddress = `127.0.0.1:${port}`;
  return {
    directory: path.resolve(directory),
    temporalAddress,
    webUiUrl: `http://127.0.0.1:${uiPort}`,
    amqpUrl: `amqp://${user}:${password}@127.0.0.1:${amqpPort}`,
    s3,
    buckets,
    temporalCliPath: temporalPath(),
    tctlPath: tctlPath(),
    parts,
    environment: () => ({
      // What a developer has in .env for real systems is none of this stack's.
      BRUSHWORK_ENV_FILE: '/dev/null',
      TEMPORAL_ADDRESS: temporalAddress,
      TEMPORAL_NAMESPACE: 'default',
      RABBITMQ_HOST: '127.0.0.1',
      RABBITMQ_PORT: String(amqpPort),
      RABBITMQ_USER: user,
      RABBITMQ_PASS: password,
      AWS_ENDPOINT_URL: s3.endpoint,
      AWS_ACCESS_KEY_ID: s3.accessKeyId,
      AWS_SECRET_ACCESS_KEY: s3.secretAccessKey,
      AWS_S3_REGION_NAME: s3.region,
      S3_BUCKET: buckets[0] ?? '',
    }),
    stop,
  };
}
