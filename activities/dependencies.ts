import type { BackendClient } from '../common/backend-client.ts';
import type { PreviewConfig } from '../common/config-types.ts';
import type { ImageUriRules } from '../common/image-uri.ts';
import type { ObjectStore } from '../common/object-store.ts';
import type { Trainer, TrainerRuntime } from '../common/trainer.ts';
import type { PartialTrainingConfig } from '../common/training-config.ts';
import type { PodFence } from './pod-fence.ts';
import type { PodRest } from './pod-rest.ts';

/** The frozen model that styles are trained on, on this pod's disk. */
export interface BaseModel {
  directory: string;
  /** Changes with its content. */
  fingerprint: string;
  /** Sides of pictures must be multiples of it, e.g. 64 for Stable Diffusion 1.5. */
  sideMultiplePx: number;
  /** What exported files call it: a hub id or the name of a folder or file, never a path. */
  name: string;
}

/** A bucket and what is kept there. */
export interface BucketDependencies {
  store: ObjectStore;
  /** Bucket of checkpoints and weights. */
  bucket: string;
  backend: BackendClient;
}

/** What the activities of the control queue need. */
export interface ControlDependencies extends BucketDependencies {
  /** Scheme of the weights' URI. */
  uriScheme: 's3' | 'gs';
  /** Newest checkpoints kept of a job that has succeeded. */
  keepFinalCheckpoints: number;
}

/** What looking at pictures before a pod is taken needs. */
export interface PicturesDependencies {
  store: ObjectStore;
  /** Bucket that gets the reports. */
  bucket: string;
  /** Scheme of the reports' URIs. */
  uriScheme: 's3' | 'gs';
  /** Directory for pictures while they are looked at. */
  scratch: string;
  imageRules: ImageUriRules;
  recipe: PartialTrainingConfig;
  /** Caption of a picture without a text file, in a job without tags. */
  instancePrompt: string;
}

/** What the activities of a pod need. */
export interface PodDependencies extends BucketDependencies {
  /** Newest checkpoints kept of a job under way. */
  keepCheckpoints: number;
  pod: { host: string; queue: string };
  trainer: Trainer;
  /** What the trainer runs on; asked once, since a trainer that trains does not answer. */
  runtime: () => Promise<TrainerRuntime>;
  fence: PodFence;
  rest: PodRest;
  /** The base model; the first call may have to fetch it. */
  baseModel: () => Promise<BaseModel>;
  /** Directory for the files of one hold; the hold removes it. */
  jobDirectory: (holdId: string) => string;
  imageRules: ImageUriRules;
  recipe: PartialTrainingConfig;
  /** Caption of a picture without a text file, in a job without tags. */
  instancePrompt: string;
  /** Contact sheets, or null: none. */
  previews: PreviewConfig | null;
  progressIntervalMs: number;
  timing: PodTiming;
  /** Version of this software, for manifests. */
  version: string;
}

/** Rhythms and limits of a pod, see `temporal.yaml`. */
export interface PodTiming {
  beatMs: number;
  /** No heartbeat accepted for this long: the pod gives up the job. */
  fenceMs: number;
  /** No training step for this long: the trainer is stuck. */
  stallMs: number;
  /** The same while the model is loaded and pictures are encoded. */
  loadStallMs: number;
}
