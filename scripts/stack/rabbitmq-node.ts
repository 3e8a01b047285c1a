import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import path from 'node:path';
import { connect } from 'amqplib';
import { findRabbitmq } from '../setup/rabbitmq.mjs';
import { Part, type PartControl } from './part.ts';

/** What the RabbitMQ node is started with. */
export interface RabbitmqNodeOptions {
  /** Holds its data, log, configuration and cookie. */
  directory: string;
  port: number;
  /** Port between Erlang nodes. */
  distributionPort: number;
  /** Port of the node's own port mapper. */
  epmdPort: number;
  user: string;
  password: string;
}

function canConnect(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ port, host: '127.0.0.1' });
    socket.once('connect', () => {
      socket.destroy();
      resolve();
    });
    socket.once('error', reject);
  });
}

function writeFiles(options: RabbitmqNodeOptions): void {
  mkdirSync(path.join(options.directory, 'rabbitmq'), { recursive: true });
  const write = (name: string, text: string, mode = 0o600) => {
    writeFileSync(path.join(options.directory, 'rabbitmq', name), text, { mode });
  };
  write(
    'rabbitmq.conf',
    [
      `listeners.tcp.local = 127.0.0.1:${options.port}`,
      `default_user = ${options.user}`,
      `default_pass = ${options.password}`,
      'disk_free_limit.absolute = 100MB',
      'log.console = true',
      'log.console.level = info',
      'log.file = false',
      '',
    ].join('\n'),
  );
  write('advanced.config', '[].\n');
  write('enabled_plugins', '[].\n');
  write('rabbitmq-env.conf', '');
  write('.erlang.cookie', randomBytes(24).toString('hex'), 0o400);
}

function nodeEnvironment(options: RabbitmqNodeOptions): Record<string, string> {
  const file = (name: string) => path.join(options.directory, 'rabbitmq', name);
  return {
    HOME: file(''),
    PATH: process.env['PATH'] ?? '',
    LANG: 'C.UTF-8',
    ERL_EPMD_PORT: String(options.epmdPort),
    ERL_EPMD_ADDRESS: '127.0.0.1',
    RABBITMQ_NODENAME: `brushwork-${options.port}@localhost`,
    RABBITMQ_NODE_IP_ADDRESS: '127.0.0.1',
    RABBITMQ_NODE_PORT: String(options.port),
    RABBITMQ_DIST_PORT: String(options.distributionPort),
    RABBITMQ_MNESIA_BASE: file('mnesia'),
    RABBITMQ_LOG_BASE: file('log'),
    RABBITMQ_LOGS: '-',
    RABBITMQ_CONFIG_FILE: file('rabbitmq.conf'),
    RABBITMQ_ADVANCED_CONFIG_FILE: file('advanced.config'),
    RABBITMQ_CONF_ENV_FILE: file('rabbitmq-env.conf'),
    RABBITMQ_ENABLED_PLUGINS_FILE: file('enabled_plugins'),
    RABBITMQ_GENERATED_CONFIG_DIR: file('generated'),
    RABBITMQ_PID_FILE: file('rabbitmq.pid'),
    // The start script then becomes the Erlang machine instead of waiting for it as its parent.
    RUNNING_UNDER_SYSTEMD: 'true',
  };
}

/** A RabbitMQ node of our own, with the port mapper that every Erlang node looks for. */
class RabbitmqNode implements PartControl {
  readonly #mapper: Part;
  readonly #node: Part;

  constructor(mapper: Part, node: Part) {
    this.#mapper = mapper;
    this.#node = node;
  }

  get name(): string {
    return this.#node.name;
  }

  get isRunning(): boolean {
    return this.#node.isRunning;
  }

  get ending(): string | null {
    return this.#node.ending;
  }

  get logFile(): string {
    return this.#node.logFile;
  }

  async start(): Promise<void> {
    await this.#mapper.start();
    await this.#node.start();
  }

  async stop(): Promise<void> {
    await this.#node.stop();
    await this.#mapper.kill();
  }

  async kill(): Promise<void> {
    await this.#node.kill();
    await this.#mapper.kill();
  }

  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  pause(): void {
    this.#node.pause();
  }

  resume(): void {
    this.#node.resume();
  }
}

/**
 * A real RabbitMQ node.
 *
 * @throws Error when RabbitMQ has not been set up
 */
export function rabbitmqNode(options: RabbitmqNodeOptions): PartControl {
  const installation = findRabbitmq();
  if (installation === null) throw new Error('RabbitMQ is not set up: run `npm run setup`.');
  writeFiles(options);
  const env = { ...nodeEnvironment(options), ...installation.env };
  const mapper = new Part({
    name: 'epmd',
    command: [installation.epmd, '-port', String(options.epmdPort), '-address', '127.0.0.1'],
    env,
    logDirectory: options.directory,
    checkHealth: () => canConnect(options.epmdPort),
  });
  const url = `amqp://${options.user}:${options.password}@127.0.0.1:${options.port}`;
  const node = new Part({
    name: 'rabbitmq',
    command: [installation.server],
    env,
    logDirectory: options.directory,
    checkHealth: async () => {
      const connection = await connect(url, { timeout: 2000 });
      await connection.close();
    },
    stopTimeoutMs: 10_000,
  });
  return new RabbitmqNode(mapper, node);
}
