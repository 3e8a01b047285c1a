import { existsSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { loadClientConnectConfig } from '@temporalio/envconfig';
import { variableFault } from './file-fault.ts';
import type { Environment, Section } from './config-source.ts';
import type {
  BackendConfig,
  PodConfig,
  RabbitMqConfig,
  Role,
  TemporalConfig,
  TrainerConfig,
  TrainingDefaults,
} from './config-types.ts';
import { contradictionIn, readTrainingConfig } from './training-config.ts';
import type { ActivityLimits, LimitName } from './types.ts';
import { originOf } from './webhook-origin.ts';

/** The backend's token may not be shorter. */
export const MIN_TOKEN_LENGTH = 32;

/** What a section is read from. */
export interface Sources {
  root: Section;
  env: Environment;
  /** The environment as it is, for libraries that read their own variables. */
  values: NodeJS.ProcessEnv;
  roles: ReadonlySet<Role>;
  needsBackend: boolean;
  faults: string[];
}

const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));

/** Section `temporal`; the standard `TEMPORAL_*` variables win, a TOML profile counts where one is named. */
export function readTemporal({ root, values, faults }: Sources): TemporalConfig {
  const section = root.section('temporal');
  const address = section.text('address');
  const namespace = section.text('namespace');
  section.finish();
  const variables: Record<string, string> = {};
  for (const [name, value] of Object.entries(values)) if (value) variables[name] = value;
  const disableFile = variables['TEMPORAL_CONFIG_FILE'] === undefined && variables['TEMPORAL_PROFILE'] === undefined;
  const profiles = variables['TEMPORAL_CONFIG_FILE'];
  if (profiles !== undefined && !existsSync(profiles))
    faults.push(`TEMPORAL_CONFIG_FILE names ${profiles}, which does not exist.`);
  let fromEnv: ReturnType<typeof loadClientConnectConfig> = { connectionOptions: {} };
  try {
    fromEnv = loadClientConnectConfig({ overrideEnvVars: variables, disableFile });
  } catch (error) {
    faults.push(variableFault(variables, error) ?? `The TEMPORAL_* variables can't be used: ${messageOf(error)}.`);
  }
  const { apiKey, tls, metadata } = fromEnv.connectionOptions;
  const finalAddress = fromEnv.connectionOptions.address ?? address;
  if (!/^[^\s/]+:\d+$/.test(finalAddress)) {
    faults.push(`The Temporal address ${JSON.stringify(finalAddress)} needs host and port, like localhost:7233.`);
  }
  return {
    address: finalAddress,
    namespace: fromEnv.namespace ?? namespace,
    connection: {
      address: finalAddress,
      ...(apiKey === undefined ? {} : { apiKey }),
      ...(tls === undefined ? {} : { tls }),
      ...(metadata === undefined ? {} : { metadata }),
    },
  };
}

/** Section `activities`. */
export function readActivities({ root }: Sources): Record<LimitName, ActivityLimits> {
  const section = root.section('activities');
  const read = (name: LimitName): ActivityLimits => {
    const activity = section.section(name);
    const retry = activity.section('retry');
    const limits: ActivityLimits = {
      startToCloseMs: activity.durationMs('startToClose'),
      heartbeatMs: activity.durationMsOrNone('heartbeat'),
      scheduleToStartMs: activity.durationMsOrNone('scheduleToStart'),
      scheduleToCloseMs: activity.durationMsOrNone('scheduleToClose'),
      retry: {
        initialIntervalMs: retry.durationMs('initialInterval'),
        backoffCoefficient: retry.number('backoffCoefficient', 1, 100),
        maximumIntervalMs: retry.durationMs('maximumInterval'),
        maximumAttempts: retry.integerOrNone('maximumAttempts', 1, 1000),
      },
    };
    retry.finish();
    activity.finish();
    return limits;
  };
  const limits = {
    inspectPictures: read('inspectPictures'),
    holdPod: read('holdPod'),
    findResumePoint: read('findResumePoint'),
    download: read('download'),
    trainEpochChunk: read('trainEpochChunk'),
    checkpoint: read('checkpoint'),
    upload: read('upload'),
    promote: read('promote'),
    notify: read('notify'),
    notifyProgress: read('notifyProgress'),
  };
  section.finish();
  return limits;
}

/** `RABBITMQ_*` and section `bridge`; null without the role `bridge`. */
export function readRabbitMq({ root, env, roles, faults }: Sources): RabbitMqConfig | null {
  const section = root.section('bridge');
  const queueInFile = section.text('queue');
  const queue = env.text('RABBITMQ_QUEUE') ?? queueInFile;
  const prefetch = section.integer('prefetch', 1, 1000);
  section.finish();
  if (!roles.has('bridge')) return null;
  let url = env.text('RABBITMQ_URL');
  if (url === null) {
    const host = env.required(
      ['RABBITMQ_HOST', 'RABBITMQ_URL'],
      'set RABBITMQ_HOST to the host of RabbitMQ, or RABBITMQ_URL to amqp://user:password@host:5672',
    );
    const user = encodeURIComponent(env.text('RABBITMQ_USER') ?? 'guest');
    const password = encodeURIComponent(env.text('RABBITMQ_PASS') ?? 'guest');
    const bracketed = host.includes(':') && !host.startsWith('[') ? `[${host}]` : host;
    url = `amqp://${user}:${password}@${bracketed}:${env.integer('RABBITMQ_PORT', 1, 65_535) ?? 5672}`;
    if (host !== '' && !URL.canParse(url))
      faults.push('RABBITMQ_HOST must be a host name or an IP address, without scheme and port.');
  } else if (!/^amqps?:\/\/./.test(url) || !URL.canParse(url) || /%(?![0-9a-f]{2})/i.test(url)) {
    faults.push(
      'RABBITMQ_URL must look like amqp://user:password@host:5672/vhost (or amqps://); write a % in the password as %25.',
    );
  }
  return { url, queue, deadQueue: `${queue}.dead`, prefetch };
}

/** `BACKEND_API_URL`, `INTERNAL_API_TOKEN` and section `backend`. A bridge alone needs (and gets) no token. */
export function readBackend({ root, env, roles, needsBackend, faults }: Sources): BackendConfig {
  const section = root.section('backend');
  const allowed = section.texts('allowedOrigins');
  const timeoutMs = section.durationMs('timeout');
  const progressIntervalMs = section.durationMs('progressInterval');
  section.finish();
  const url = needsBackend
    ? env.required(['BACKEND_API_URL'], 'set it to the URL of the backend, e.g. https://api.example.com')
    : '';
  const origin = url === '' ? null : originOf(url);
  if (url !== '' && origin === null)
    faults.push('BACKEND_API_URL must be an http(s) URL without user name, e.g. https://api.example.com.');
  const allowedOrigins = origin === null ? [] : [origin];
  for (const entry of allowed) {
    const other = originOf(entry);
    if (other === null)
      section.fault(
        'allowedOrigins',
        `holds ${JSON.stringify(entry)}: each entry must look like https://staging.example.com`,
      );
    else if (!allowedOrigins.includes(other)) allowedOrigins.push(other);
  }
  let token: string | null = null;
  if (roles.has('control') || roles.has('pod')) {
    token = env.required(
      ['INTERNAL_API_TOKEN'],
      `set it to the secret that the backend expects, at least ${MIN_TOKEN_LENGTH} characters`,
    );
    if (token !== '' && token.length < MIN_TOKEN_LENGTH) {
      faults.push(
        `INTERNAL_API_TOKEN has ${token.length} characters: use one of at least ${MIN_TOKEN_LENGTH}, e.g. from "openssl rand -hex 32".`,
      );
    }
    if (/[^\x21-\x7e]/.test(token))
      faults.push('INTERNAL_API_TOKEN holds spaces or characters that a header cannot carry: use letters and digits.');
  }
  return { allowedOrigins, token, timeoutMs, progressIntervalMs };
}

/** Section `training`. */
export function readTraining({ root, faults }: Sources): TrainingDefaults {
  const section = root.section('training');
  const instancePrompt = section.text('instancePrompt');
  const { values, faults: recipeFaults } = readTrainingConfig(section.raw('recipe') ?? {});
  const together = contradictionIn(values);
  for (const fault of [...recipeFaults, ...(together === null ? [] : [together])]) {
    faults.push(`${section.path}.recipe: ${fault}.`);
  }
  section.finish();
  return { recipe: values, instancePrompt };
}

const DEFAULT_HUB = 'https://huggingface.co';

/** `BRUSHWORK_*`, `HF_*` and section `trainer`. */
export function readTrainer({ root, env, faults }: Sources): TrainerConfig {
  const section = root.section('trainer');
  const deviceInFile = section.choice('device', ['auto', 'cpu', 'cuda']);
  const threadsInFile = section.integer('cpuThreads', 1, 1024);
  section.finish();
  const wanted = env.text('BRUSHWORK_DEVICE');
  const device = wanted === null ? deviceInFile : (['auto', 'cpu', 'cuda'] as const).find((known) => known === wanted);
  if (device === undefined) faults.push(`BRUSHWORK_DEVICE is ${JSON.stringify(wanted)}: set it to auto, cpu or cuda.`);
  const endpoint = env.text('HF_ENDPOINT') ?? DEFAULT_HUB;
  if (originOf(endpoint) === null)
    faults.push(`HF_ENDPOINT is ${JSON.stringify(endpoint)}: set it to the http(s) URL of a model hub, or unset it.`);
  const userCache = env.text('XDG_CACHE_HOME') ?? path.join(os.homedir(), '.cache');
  return {
    device: device ?? 'auto',
    cpuThreads: env.integer('BRUSHWORK_CPU_THREADS', 1, 1024) ?? threadsInFile,
    cudaVisibleDevices: env.text('CUDA_VISIBLE_DEVICES'),
    cacheDirectory: path.join(userCache, 'brushwork'),
    hub: { endpoint, token: env.text('HF_TOKEN') },
  };
}

/** `BRUSHWORK_WORK_DIRECTORY`. */
export function readWorkDirectory({ env }: Sources): string {
  return path.resolve(env.text('BRUSHWORK_WORK_DIRECTORY') ?? path.join(os.tmpdir(), 'brushwork'));
}

/** `BASE_MODEL` and section `pod`; null without the role `pod`. */
export function readPod({ root, env, roles }: Sources): PodConfig | null {
  const section = root.section('pod');
  const times = {
    beatMs: section.durationMs('beat'),
    heartbeatThrottleMs: section.durationMs('heartbeatThrottle'),
    fenceMs: section.durationMs('fence'),
    stallMs: section.durationMs('stall'),
    loadStallMs: section.durationMs('loadStall'),
    shutdownMs: section.durationMs('shutdown'),
    restMs: section.durationMs('rest'),
  };
  const minFreeDiskMiB = section.integer('minFreeDiskMiB', 0, 2 ** 30);
  section.finish();
  if (!roles.has('pod')) return null;
  const baseModel = env.required(
    ['BASE_MODEL'],
    'set it to Stable Diffusion 1.5: a directory in diffusers layout, a .safetensors file, a hub id, or s3://bucket/prefix',
  );
  return { baseModel, ...times, minFreeDiskMiB };
}
