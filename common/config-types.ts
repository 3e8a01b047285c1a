import type { ClientConnectConfig } from '@temporalio/envconfig';
import type { SheetStyle } from './trainer.ts';
import type { PartialTrainingConfig } from './training-config.ts';
import type { ActivityLimits, LimitName } from './types.ts';

/** What a process can be; one process may be any mix. */
export const ROLES = ['bridge', 'control', 'pod'] as const;

/** See {@link ROLES}. */
export type Role = (typeof ROLES)[number];

/** How to reach Temporal. */
export interface TemporalConfig {
  address: string;
  namespace: string;
  /** For `Connection.connect` and `NativeConnection.connect`: address, TLS, API key, metadata. */
  connection: Pick<ClientConnectConfig['connectionOptions'], 'address' | 'apiKey' | 'tls' | 'metadata'>;
}

/** How to reach RabbitMQ. */
export interface RabbitMqConfig {
  /** `amqp://` or `amqps://` with credentials: never log it. */
  url: string;
  /** Queue of job messages. */
  queue: string;
  /** Queue of messages that were refused. */
  deadQueue: string;
  /** Messages held unacknowledged at most. */
  prefetch: number;
}

/** How to reach the store. */
export interface StoreConfig {
  /** S3-compatible endpoint, or null for AWS itself. */
  endpoint: string | null;
  region: string;
  accessKeyId: string;
  secretAccessKey: string;
  sessionToken: string | null;
  checksums: 'when-required' | 'when-supported';
  /** Directory below which `file://` images may lie, or null: refused. */
  fileUriRoot: string | null;
}

/** The store, and what is kept in our bucket. */
export interface StorageConfig extends StoreConfig {
  /** Bucket of checkpoints and weights. */
  bucket: string;
  /** Newest checkpoints kept of a job under way. */
  keepCheckpoints: number;
  /** Newest checkpoints kept of a job that has succeeded. */
  keepFinalCheckpoints: number;
}

/** How to reach the backend. */
export interface BackendConfig {
  /** Origins that a message's `webhook_url` may have; the first is that of `BACKEND_API_URL`. */
  allowedOrigins: string[];
  /** At least 32 characters; null in a process that sends no webhooks. Never log it. */
  token: string | null;
  timeoutMs: number;
  progressIntervalMs: number;
}

/** Defaults of the recipe. */
export interface TrainingDefaults {
  recipe: PartialTrainingConfig;
  /** Caption of a picture without a text file, in a job without tags. */
  instancePrompt: string;
}

/** Contact sheets: what they show, and what they may cost. */
export interface PreviewConfig {
  /** False: a pod draws none. */
  enabled: boolean;
  sheet: SheetStyle;
  /** Share of a pod's time that drawing may take, but for the first and the last sheet of a job; failures count. */
  maxShare: number;
  /** A sheet that takes longer is given up. */
  timeLimitMs: number;
}

/** Where base models come from by their id. */
export interface HubConfig {
  /** An http(s) URL, with a path where a mirror has one. */
  endpoint: string;
  /** For models that need an account, or null. Never log it. */
  token: string | null;
}

/** What a trainer runs on, in a pod and on the command line. */
export interface TrainerConfig {
  /** 'auto' takes the GPU where there is one. */
  device: 'auto' | 'cpu' | 'cuda';
  /** Threads of the mathematics on a CPU: equal counts give equal bits. */
  cpuThreads: number;
  /** As given by `CUDA_VISIBLE_DEVICES`, or null. */
  cudaVisibleDevices: string | null;
  /** Where downloaded base models are kept. */
  cacheDirectory: string;
  hub: HubConfig;
}

/** The base model of a command. */
export interface BaseModelConfig {
  /** See `resolveBaseModel`. */
  source: string;
  /** Where it is fetched from; null: it lies in no bucket. */
  store: StoreConfig | null;
}

/** What a pod needs. */
export interface PodConfig {
  /** See `resolveBaseModel`. */
  baseModel: string;
  beatMs: number;
  heartbeatThrottleMs: number;
  fenceMs: number;
  stallMs: number;
  loadStallMs: number;
  shutdownMs: number;
  minFreeDiskMiB: number;
  restMs: number;
}

/** Everything that can be set. Sections that no role of this process needs are null. */
export interface Config {
  temporal: TemporalConfig;
  queues: { control: string; pods: string };
  searchAttributes: {
    StyleId: 'Keyword';
    TaskId: 'Keyword';
    TrainPhase: 'Keyword';
    TrainEpoch: 'Int';
    TrainErrorCode: 'Keyword';
    GpuHost: 'Keyword';
  };
  limits: Record<LimitName, ActivityLimits>;
  workflow: { chunkEpochs: number; podLossBudget: number; applicationAttempts: number };
  /** Role bridge. */
  rabbitmq: RabbitMqConfig | null;
  /** Roles control and pod. */
  storage: StorageConfig | null;
  backend: BackendConfig;
  training: TrainingDefaults;
  previews: PreviewConfig;
  trainer: TrainerConfig;
  /** Of a command that trains or draws by itself; null where none is named. */
  baseModel: BaseModelConfig | null;
  /** Scratch space for pictures and checkpoints, shared by all workers of this machine. */
  workDirectory: string;
  /** Role pod. */
  pod: PodConfig | null;
  /** Directory by which tests hold this process at named moments, see `common/fault-point.ts`; null: they can't. */
  faultPoints: string | null;
  logLevel: 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace';
}
