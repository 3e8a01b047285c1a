import { withDigest, withoutDigest } from './digest.ts';
import { CheckpointIncompatibleError, ChecksumMismatchError } from './errors.ts';
import type { CheckpointRef, ManifestObject, ValidationLoss } from './types.ts';

/** Version of the manifest's layout: readers refuse any other. */
export const MANIFEST_SCHEMA = 1;

/** Manifests are small; anything longer is none of ours. */
export const MAX_MANIFEST_BYTES = 256 * 1024;

/** What commits a checkpoint: written last, only if absent, and never changed. */
export interface CheckpointManifest {
  schema: typeof MANIFEST_SCHEMA;
  styleId: number;
  taskId: string;
  /** Epochs done. */
  epoch: number;
  /** Micro-steps done. */
  step: number;
  /** Of configuration, data and base model, see `DownloadResult`. */
  fingerprint: string;
  /** Fingerprint of the base model alone; absent in manifests of earlier versions. */
  baseModel?: string;
  objects: ManifestObject[];
  /** Contact sheet; absent where none was drawn. No checkpoint needs it. */
  preview?: ManifestObject;
  /** Mean loss of each epoch, oldest first. */
  epochLosses: number[];
  /** What was measured on held-out pictures, oldest first; absent without validation. */
  validationLosses?: ValidationLoss[];
  /** Hold under which it was written. */
  holdId: string;
  versions: { brushwork: string; torch: string };
  /** ISO 8601. */
  createdAt: string;
}

/** Names the job whose keys are meant. */
export interface JobKeys {
  styleId: number;
  taskId: string;
}

/** What names of files and keys of one epoch begin with; they sort like epochs. */
export function epochName(epoch: number): string {
  return `epoch-${String(epoch).padStart(6, '0')}`;
}

/** Everything that a job keeps in the bucket until it is done. */
export function checkpointPrefix({ styleId, taskId }: JobKeys): string {
  return `checkpoints/style_${styleId}/${taskId}/`;
}

/** The report on a job's pictures: lies beside its checkpoints, so that one rule of the store clears both away. */
export function dataReportKey(job: JobKeys, extension: 'json' | 'txt'): string {
  return `${checkpointPrefix(job)}data-report.${extension}`;
}

/** Below this lie copies of the pictures that a job was ordered with and that may be gone later. */
export function keptPicturesPrefix(job: JobKeys): string {
  return `${checkpointPrefix(job)}pictures/`;
}

/** Below this lie the manifests of a job. */
export function manifestPrefix(job: JobKeys): string {
  return `${checkpointPrefix(job)}manifests/`;
}

/** Key of the manifest of one epoch; keys sort like epochs. */
export function manifestKey(job: JobKeys, epoch: number): string {
  return `${manifestPrefix(job)}${epochName(epoch)}.json`;
}

/**
 * Key of a checkpoint's data.
 *
 * @param unique - differs for each attempt at writing it, so that no writer ever touches another's object
 */
export function checkpointDataKey(job: JobKeys, epoch: number, unique: string): string {
  return `${checkpointPrefix(job)}data/${epochName(epoch)}-${unique}.safetensors`;
}

/** Key of a checkpoint's contact sheet; `unique` as for its data. */
export function previewKey(job: JobKeys, epoch: number, unique: string): string {
  return `${checkpointPrefix(job)}previews/${epochName(epoch)}-${unique}.png`;
}

/** Epoch that a manifest or data key belongs to, or null for any other key. */
export function epochOfKey(key: string): number | null {
  const match = /\/(?:manifests|data)\/epoch-(\d{6})[^/]*$/.exec(key);
  return match?.[1] === undefined ? null : Number(match[1]);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function isManifestObject(value: unknown): value is ManifestObject {
  return (
    isObject(value) &&
    typeof value['key'] === 'string' &&
    isCount(value['sizeBytes']) &&
    typeof value['sha256'] === 'string' &&
    /^[0-9a-f]{64}$/.test(value['sha256'])
  );
}

function isValidationLoss(value: unknown, lastEpoch: number): value is ValidationLoss {
  if (!isObject(value) || !isCount(value['epoch'])) return false;
  return value['epoch'] <= lastEpoch && typeof value['loss'] === 'number' && Number.isFinite(value['loss']);
}

function isManifest(value: unknown): value is CheckpointManifest {
  if (!isObject(value) || !isObject(value['versions'])) return false;
  const { objects, epochLosses, epoch, preview, baseModel = '', validationLosses = [] } = value;
  return (
    value['schema'] === MANIFEST_SCHEMA &&
    isCount(value['styleId']) &&
    isCount(epoch) &&
    isCount(value['step']) &&
    ['taskId', 'fingerprint', 'holdId', 'createdAt'].every((name) => typeof value[name] === 'string') &&
    ['brushwork', 'torch'].every((name) => typeof (value['versions'] as Record<string, unknown>)[name] === 'string') &&
    typeof baseModel === 'string' &&
    Array.isArray(objects) &&
    objects.length > 0 &&
    objects.every(isManifestObject) &&
    (preview === undefined || isManifestObject(preview)) &&
    Array.isArray(epochLosses) &&
    epochLosses.length === epoch &&
    epochLosses.every((loss) => typeof loss === 'number' && Number.isFinite(loss)) &&
    Array.isArray(validationLosses) &&
    validationLosses.every((each) => isValidationLoss(each, epoch))
  );
}

/** The content of a manifest's object: the manifest, and the SHA-256 of it as JSON. */
export function serializeManifest(manifest: CheckpointManifest): string {
  return JSON.stringify(withDigest(manifest));
}

/**
 * Reads a manifest that may have been damaged or written by anybody.
 *
 * @param bytes - content of the object
 * @param key - where it was found
 * @param job - whose manifest it must be
 * @throws CheckpointIncompatibleError when another version of this software has written it in another format
 * @throws ChecksumMismatchError when it is not a whole manifest of this job and epoch
 */
export function parseManifest(bytes: Uint8Array, key: string, job: JobKeys): CheckpointManifest {
  let value: unknown = null;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw new ChecksumMismatchError(`The checkpoint manifest ${key} is not JSON: it was damaged.`, { cause: error });
  }
  if (isObject(value) && value['taskId'] === job.taskId && isCount(value['schema'])) {
    const { schema } = value;
    if (schema !== MANIFEST_SCHEMA) {
      throw new CheckpointIncompatibleError(
        `The checkpoint manifest ${key} has format ${schema}, and this version of Brushwork reads format ${MANIFEST_SCHEMA}: ` +
          'redo the job with the version that wrote it, or send it with a new task_id to train from the start.',
      );
    }
  }
  const manifest = isObject(value) ? withoutDigest(value) : value;
  if (manifest === null)
    throw new ChecksumMismatchError(`The checkpoint manifest ${key} is not what its digest says: it was damaged.`);
  const prefix = checkpointPrefix(job);
  if (
    !isManifest(manifest) ||
    manifest.styleId !== job.styleId ||
    manifest.taskId !== job.taskId ||
    key !== manifestKey(job, manifest.epoch) ||
    ![...manifest.objects, manifest.preview].every((object) => object?.key.startsWith(prefix) ?? true)
  ) {
    throw new ChecksumMismatchError(`The checkpoint manifest ${key} is not a whole manifest of this job.`);
  }
  return manifest;
}

/** The part of a manifest that travels through the workflow. */
export function checkpointRef(manifest: CheckpointManifest): CheckpointRef {
  const { epoch, step, fingerprint, preview } = manifest;
  const ref = { manifestKey: manifestKey(manifest, epoch), epoch, step, fingerprint };
  return preview === undefined ? ref : { ...ref, previewKey: preview.key };
}
