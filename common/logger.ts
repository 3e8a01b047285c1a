import { pino } from 'pino';
import type { DestinationStream, Logger } from 'pino';
import type { Config } from './config-types.ts';

export type { Logger } from 'pino';

/** What {@link createLogger} needs. */
export interface LoggerOptions {
  level: Config['logLevel'];
  /** Fields of every line, e.g. `{ role: 'bridge' }`. */
  fields?: Record<string, string>;
  /** Texts that must never appear, see {@link configSecrets}. */
  secrets?: readonly string[];
  /** Default: standard output. */
  destination?: DestinationStream;
}

/** Shorter texts than this are no secrets: blacking them out would only garble the log. */
const MIN_SECRET_LENGTH = 8;

/** Lines that wait while standard output takes none; more are lost. */
const MAX_UNWRITTEN_BYTES = 1024 * 1024;

/** A URL's query, where it signs the URL; the value of an Authorization header; user info of a URL. */
const SECRET_SHAPES: readonly (readonly [RegExp, string])[] = [
  [/\?[^\s"\\]*(?:Signature|Credential)=[^\s"\\]*/gi, '?[signature]'],
  [/\bBearer [\w.~+/=-]+/g, 'Bearer [token]'],
  [/\b([a-z][a-z0-9+.-]*:\/\/[^\s"\\/:@]*):[^\s"\\/@]*@/gi, '$1:[password]@'],
];

/**
 * Makes a logger that writes a JSON object per line. The whole line is searched for secrets, error texts and nested
 * fields included, since one cannot know which library puts which URL into which message.
 *
 * @param options - see {@link LoggerOptions}
 */
export function createLogger(options: LoggerOptions): Logger {
  const redact = redactor(options.secrets ?? []);
  return pino(
    {
      level: options.level,
      base: { ...options.fields },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      hooks: { streamWrite: redact },
    },
    options.destination ?? standardOutput(),
  );
}

/**
 * A full disk behind standard output costs log lines, not the process: without a listener, the call that logs would throw.
 * Lines that can't be written are kept for later, up to a limit. pino itself sees to a reader that goes away.
 */
function standardOutput(): DestinationStream {
  const destination = pino.destination({ fd: 1, sync: true, maxLength: MAX_UNWRITTEN_BYTES });
  destination.on('error', () => undefined);
  return destination;
}

/**
 * What went wrong in one line, causes included: for outages that are expected, where a stack would only hide it.
 *
 * @param error - what a `catch` received
 */
export function reasonOf(error: unknown): string {
  const messages: string[] = [];
  for (let current = error; current !== undefined && messages.length < 5;) {
    const message = current instanceof Error ? current.message : JSON.stringify(current);
    if (!messages.some((earlier) => earlier.includes(message))) messages.push(message);
    current = current instanceof Error ? current.cause : undefined;
  }
  return messages.join(': ');
}

/** What every line about a job carries. */
export interface JobFields {
  styleId: number;
  taskId: string;
  /** Host of the pod, where there is one. */
  pod?: string;
}

/**
 * A logger for one job: its lines carry `style`, `task` and `pod`.
 *
 * @param logger - the process's logger
 * @param fields - the job
 */
export function jobLogger(logger: Logger, fields: JobFields): Logger {
  const { styleId, taskId, pod } = fields;
  return logger.child({ style: styleId, task: taskId, ...(pod === undefined ? {} : { pod }) });
}

/**
 * All secrets of a configuration, for {@link LoggerOptions.secrets}.
 *
 * @param config - what `loadConfig` returned
 */
export function configSecrets(config: Config): string[] {
  const secrets = [
    config.backend.token,
    config.storage?.secretAccessKey,
    config.storage?.sessionToken,
    config.baseModel?.store?.secretAccessKey,
    config.baseModel?.store?.sessionToken,
    config.trainer.hub.token,
  ];
  const { apiKey } = config.temporal.connection;
  if (typeof apiKey === 'string') secrets.push(apiKey);
  if (config.rabbitmq !== null) {
    const { password } = new URL(config.rabbitmq.url);
    secrets.push(password, decodeURIComponent(password));
  }
  return secrets.filter((secret) => typeof secret === 'string').filter((secret) => secret.length >= MIN_SECRET_LENGTH);
}

/**
 * Makes a function that blacks out secrets in a text.
 *
 * @param secrets - texts that must not appear, see {@link configSecrets}
 */
export function redactor(secrets: readonly string[]): (text: string) => string {
  // Inside a JSON string some characters are escaped.
  const spellings = secrets.flatMap((secret) => [secret, JSON.stringify(secret).slice(1, -1)]);
  return (text) => {
    let clean = text;
    for (const spelling of spellings) clean = clean.replaceAll(spelling, '[secret]');
    for (const [shape, replacement] of SECRET_SHAPES) clean = clean.replace(shape, replacement);
    return clean;
  };
}
