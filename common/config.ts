import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseEnv } from 'node:util';
import { parse } from 'yaml';
import { readPreviews } from './config-previews.ts';
import {
  readActivities,
  readBackend,
  readPod,
  readRabbitMq,
  readTemporal,
  readTrainer,
  readTraining,
  readWorkDirectory,
} from './config-sections.ts';
import type { Sources } from './config-sections.ts';
import { readStorage } from './config-storage.ts';
import { fileFault } from './file-fault.ts';
import { ConfigError, Environment, Section, overlay } from './config-source.ts';
import { checkTogether } from './config-together.ts';
import type { Config, Role } from './config-types.ts';
import { ROLES } from './config-types.ts';
import type { WorkflowSettings } from './types.ts';

export { MIN_TOKEN_LENGTH } from './config-sections.ts';
export { ConfigError } from './config-source.ts';
export type * from './config-types.ts';

const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace'] as const;
const DEFAULTS_FILE = fileURLToPath(new URL('../temporal.yaml', import.meta.url));

/** Where the configuration comes from; every part has a default. */
export interface LoadConfigOptions {
  /** YAML file laid over the defaults in `temporal.yaml`; default: what `BRUSHWORK_CONFIG` names, else none. */
  file?: string;
  /** Default: that of this process, and below it the file that `BRUSHWORK_ENV_FILE` names, or `.env` of the current directory. */
  env?: NodeJS.ProcessEnv;
  /** Roles of this process: only what they need is demanded. Default: all. */
  roles?: readonly Role[];
  /** False where nothing calls the backend, so that its URL is not demanded. Default: true, where there is a role. */
  needsBackend?: boolean;
  /**
   * Where a command fetches a base model by itself: what its command line names, null: nothing, so that `BASE_MODEL` counts.
   * The keys of the store are demanded where it lies in a bucket.
   */
  model?: string | null;
}

function readYaml(file: string, faults: string[], namedBy: string | null = null): unknown {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    faults.push(`${namedBy === null ? file : `${namedBy} names ${file}, which`} ${fileFault(error)}.`);
    return null;
  }
  try {
    const document: unknown = parse(text, { prettyErrors: true });
    if (document === null || (typeof document === 'object' && !Array.isArray(document))) return document;
    faults.push(`${file} must hold settings by their names, as temporal.yaml does.`);
    return null;
  } catch (error) {
    faults.push(`${file} can't be used: ${error instanceof Error ? error.message.split('\n')[0] : String(error)}`);
    return null;
  }
}

function readDotEnv(faults: string[]): NodeJS.ProcessEnv {
  const named = process.env['BRUSHWORK_ENV_FILE'];
  const file = path.resolve(named ?? '.env');
  if (named === undefined && !existsSync(file)) return {};
  try {
    return parseEnv(readFileSync(file, 'utf8'));
  } catch (error) {
    faults.push(`${file} can't be read: ${error instanceof Error ? error.message : String(error)}.`);
    return {};
  }
}

/**
 * Reads `temporal.yaml`, an optional file over it, and the environment, which wins.
 *
 * @param options - see {@link LoadConfigOptions}
 * @throws ConfigError listing every fault at once
 */
export function loadConfig(options: LoadConfigOptions = {}): Config {
  const roles = new Set<Role>(options.roles ?? ROLES);
  const faults: string[] = [];
  const values = options.env ?? { ...readDotEnv(faults), ...process.env };
  const env = new Environment(values, faults);
  const defaults = readYaml(DEFAULTS_FILE, faults);
  const file = options.file ?? env.text('BRUSHWORK_CONFIG');
  const fileVariable = options.file === undefined ? 'BRUSHWORK_CONFIG' : null;
  const document = file === null ? defaults : overlay(defaults, readYaml(path.resolve(file), faults, fileVariable));
  // A file that can't be read is the only fault worth telling: all others would follow from it.
  if (faults.length > 0) throw new ConfigError(faults);

  const root = new Section(path.basename(file ?? DEFAULTS_FILE), document, faults);
  const needsBackend = roles.size > 0 && options.needsBackend !== false;
  const sources: Sources = { root, env, values, roles, needsBackend, faults };
  const temporal = readTemporal(sources);
  const queues = root.section('queues');
  const workflow = root.section('workflow');
  const level = env.text('LOG_LEVEL') ?? 'info';
  const logLevel = LOG_LEVELS.find((known) => known === level.toLowerCase());
  if (logLevel === undefined)
    faults.push(`LOG_LEVEL is ${JSON.stringify(level)}: set it to one of ${LOG_LEVELS.join(', ')}.`);
  const config: Config = {
    temporal,
    queues: { control: queues.text('control'), pods: queues.text('pods') },
    searchAttributes: readSearchAttributes(root.section('searchAttributes')),
    limits: readActivities(sources),
    workflow: {
      chunkEpochs: workflow.integer('chunkEpochs', 1, 1000),
      podLossBudget: workflow.integer('podLossBudget', 1, 1000),
      applicationAttempts: workflow.integer('applicationAttempts', 1, 100),
    },
    rabbitmq: readRabbitMq(sources),
    ...readStorage(sources, options.model),
    backend: readBackend(sources),
    training: readTraining(sources),
    previews: readPreviews(sources),
    trainer: readTrainer(sources),
    workDirectory: readWorkDirectory(sources),
    pod: readPod(sources),
    faultPoints: env.text('BRUSHWORK_FAULT_POINTS'),
    logLevel: logLevel ?? 'info',
  };
  queues.finish();
  workflow.finish();
  root.finish();
  const alone = [...faults];
  checkTogether(config, faults, (name) => alone.some((fault) => isAbout(fault, `${root.path}.${name}`)));
  if (faults.length > 0) throw new ConfigError(faults);
  return config;
}

/** Whether a fault is of a section itself or of one of its settings. */
function isAbout(fault: string, section: string): boolean {
  return fault.startsWith(`${section}.`) || fault.startsWith(`${section} `);
}

function readSearchAttributes(section: Section): Config['searchAttributes'] {
  const attributes = {
    StyleId: section.choice('StyleId', ['Keyword']),
    TaskId: section.choice('TaskId', ['Keyword']),
    TrainPhase: section.choice('TrainPhase', ['Keyword']),
    TrainEpoch: section.choice('TrainEpoch', ['Int']),
    TrainErrorCode: section.choice('TrainErrorCode', ['Keyword']),
    GpuHost: section.choice('GpuHost', ['Keyword']),
  };
  section.finish();
  return attributes;
}

/**
 * The part of the configuration that travels with a job, since workflow code can't read any.
 *
 * @param config - the bridge's configuration
 * @param searchAttributes - whether the namespace knows our search attributes
 */
export function workflowSettings(config: Config, searchAttributes: boolean): WorkflowSettings {
  return { podsQueue: config.queues.pods, ...config.workflow, searchAttributes, limits: config.limits };
}

/**
 * A section that depends on the roles of this process.
 *
 * @param config - what {@link loadConfig} returned
 * @param name - the section
 * @throws ConfigError when the process was started without a role that reads it
 */
export function requireSection<Name extends 'rabbitmq' | 'storage' | 'pod'>(
  config: Config,
  name: Name,
): NonNullable<Config[Name]> {
  const section: Config[Name] = config[name];
  if (section === null) throw new ConfigError([`${name} is not configured for the roles of this process.`]);
  return section;
}

const SECRET_VARIABLE = /TOKEN|SECRET|PASS|KEY|CREDENTIAL|^RABBITMQ_URL$/i;

/**
 * The environment of this process for a child that must not know any keys.
 *
 * @returns all variables but those whose names say that they hold a secret
 */
export function environmentWithoutSecrets(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !SECRET_VARIABLE.test(name)));
}
