/** Every code that the backend may receive as `error_code` and operators as failure type. */
export type ErrorCode =
  | 'INVALID_REQUEST'
  | 'TRAINING_IN_PROGRESS'
  | 'BLOCKED_TARGET'
  | 'IMAGE_NOT_FOUND'
  | 'IMAGE_INVALID'
  | 'TOO_FEW_IMAGES'
  | 'ACCESS_DENIED'
  | 'STORAGE_UNAVAILABLE'
  | 'CHECKSUM_MISMATCH'
  | 'CHECKPOINT_INCOMPATIBLE'
  | 'WORKER_SHUTDOWN'
  | 'POD_LOST'
  | 'GPU_FAULT'
  | 'GPU_OUT_OF_MEMORY'
  | 'TRAINING_STALLED'
  | 'LOSS_NOT_FINITE'
  | 'MODEL_LOAD_FAILED'
  | 'WEBHOOK_UNAVAILABLE'
  | 'WEBHOOK_REJECTED'
  | 'WEBHOOK_UNAUTHORIZED'
  | 'CANCELLED'
  | 'INTERNAL';

/** Base of all our errors: a code for machines, a sentence for people, and whether trying again can help. */
export abstract class BrushworkError extends Error {
  abstract readonly code: ErrorCode;
  /** True when the same call may succeed later without anyone changing anything. */
  abstract readonly retryable: boolean;
  override readonly cause: unknown;

  /**
   * @param message - what happened and what to do about it
   * @param options - the underlying error, kept for the log
   */
  constructor(message: string, options: { cause?: unknown } = {}) {
    super(message);
    this.name = new.target.name;
    this.cause = options.cause;
  }
}

/** Thrown when a message or a parameter does not follow the contract. */
export class InvalidRequestError extends BrushworkError {
  readonly code = 'INVALID_REQUEST';
  readonly retryable = false;
}

/** Thrown when what is to be read is longer than allowed; knows what was seen of it. */
export class TooLongError extends InvalidRequestError {
  /** Of all of it; null where nobody has said. */
  readonly sizeBytes: number | null;
  /** Its first bytes, as many as came. */
  readonly start: Uint8Array;

  /**
   * @param message - names it and the limit
   * @param seen - what is known of it
   */
  constructor(message: string, { sizeBytes, start }: { sizeBytes: number | null; start: Uint8Array }) {
    super(message);
    this.sizeBytes = sizeBytes;
    this.start = start;
  }
}

/** Thrown when another task of the same style is still training. */
export class TrainingInProgressError extends BrushworkError {
  readonly code = 'TRAINING_IN_PROGRESS';
  readonly retryable = false;
}

/** Thrown when a URI or webhook target is not one that we may call. */
export class BlockedTargetError extends BrushworkError {
  readonly code = 'BLOCKED_TARGET';
  readonly retryable = false;
}

/** Thrown when an image key does not exist. */
export class ImageNotFoundError extends BrushworkError {
  readonly code = 'IMAGE_NOT_FOUND';
  readonly retryable: boolean;

  /** @param options - `retryable`: true where another pod may read otherwise; default: false */
  constructor(message: string, options: { cause?: unknown; retryable?: boolean } = {}) {
    super(message, options);
    this.retryable = options.retryable ?? false;
  }
}

/** Thrown when an image can't be decoded or breaks a limit; names all such images at once. */
export class ImageInvalidError extends BrushworkError {
  readonly code = 'IMAGE_INVALID';
  readonly retryable: boolean;

  /** @param options - `retryable`: true where another pod may read otherwise; default: false */
  constructor(message: string, options: { cause?: unknown; retryable?: boolean } = {}) {
    super(message, options);
    this.retryable = options.retryable ?? false;
  }
}

/** Thrown when a job has fewer images than a style needs. */
export class TooFewImagesError extends BrushworkError {
  readonly code = 'TOO_FEW_IMAGES';
  readonly retryable = false;
}

/** Thrown when the object store refuses our credentials, or a server a picture. */
export class AccessDeniedError extends BrushworkError {
  readonly code = 'ACCESS_DENIED';
  readonly retryable: boolean;

  /** @param options - `retryable`: true where other credentials, of another pod or given later, would do; default: false */
  constructor(message: string, options: { cause?: unknown; retryable?: boolean } = {}) {
    super(message, options);
    this.retryable = options.retryable ?? false;
  }
}

/** Thrown when the object store can't be reached or asks us to slow down. */
export class StorageUnavailableError extends BrushworkError {
  readonly code = 'STORAGE_UNAVAILABLE';
  readonly retryable = true;
}

/** Thrown when bytes differ from the SHA-256 that was recorded for them. */
export class ChecksumMismatchError extends BrushworkError {
  readonly code = 'CHECKSUM_MISMATCH';
  readonly retryable = true;
}

/** Thrown when a checkpoint belongs to another configuration, data set, base model or format. */
export class CheckpointIncompatibleError extends BrushworkError {
  readonly code = 'CHECKPOINT_INCOMPATIBLE';
  readonly retryable = false;
}

/** Thrown by activities of a pod that is asked to leave. */
export class WorkerShutdownError extends BrushworkError {
  readonly code = 'WORKER_SHUTDOWN';
  readonly retryable = true;
}

/** Thrown when a pod stops answering or lost its hold. */
export class PodLostError extends BrushworkError {
  readonly code = 'POD_LOST';
  readonly retryable = true;
}

/** Thrown when the trainer process died or the GPU reported a fault. */
export class GpuFaultError extends BrushworkError {
  readonly code = 'GPU_FAULT';
  readonly retryable = true;
}

/** Thrown when the GPU's (or the machine's) memory does not suffice. */
export class GpuOutOfMemoryError extends BrushworkError {
  readonly code = 'GPU_OUT_OF_MEMORY';
  readonly retryable = true;
}

/** Thrown when no training step finished for too long. */
export class TrainingStalledError extends BrushworkError {
  readonly code = 'TRAINING_STALLED';
  readonly retryable = true;
}

/** Thrown when the loss, or the LoRA itself, became NaN or infinite. */
export class LossNotFiniteError extends BrushworkError {
  readonly code = 'LOSS_NOT_FINITE';
  readonly retryable = true;
}

/** Thrown when the base model is missing, damaged or not a Stable Diffusion 1.x. */
export class ModelLoadFailedError extends BrushworkError {
  readonly code = 'MODEL_LOAD_FAILED';
  readonly retryable = true;
}

/** Thrown when the backend can't be reached or answers that it can't serve now. */
export class WebhookUnavailableError extends BrushworkError {
  readonly code = 'WEBHOOK_UNAVAILABLE';
  readonly retryable = true;
  /** How long the backend asks us to wait before the next try (`Retry-After`), or null when it did not say. */
  readonly retryAfterMs: number | null;

  constructor(message: string, options: { cause?: unknown; retryAfterMs?: number | null } = {}) {
    super(message, options);
    this.retryAfterMs = options.retryAfterMs ?? null;
  }
}

/** Thrown when the backend says that it will never take a notice. */
export class WebhookRejectedError extends BrushworkError {
  readonly code = 'WEBHOOK_REJECTED';
  readonly retryable = false;
}

/** Thrown when the backend refuses our token or source header. */
export class WebhookUnauthorizedError extends BrushworkError {
  readonly code = 'WEBHOOK_UNAUTHORIZED';
  readonly retryable = true;
}

/** Thrown when an operator cancelled the job. */
export class CancelledError extends BrushworkError {
  readonly code = 'CANCELLED';
  readonly retryable = false;
}

/** Thrown when a bug of ours shows: nothing else fits. */
export class InternalError extends BrushworkError {
  readonly code = 'INTERNAL';
  readonly retryable: boolean;

  /** @param options - `retryable`: false where another try comes to the same; default: true */
  constructor(message: string, options: { cause?: unknown; retryable?: boolean } = {}) {
    super(message, options);
    this.retryable = options.retryable ?? true;
  }
}

/** True for the codes of {@link ERROR_CLASSES}. */
export function isErrorCode(value: unknown): value is ErrorCode {
  return typeof value === 'string' && Object.hasOwn(ERROR_CLASSES, value);
}

/** Maps a code back to its class, e.g. for errors that crossed a process border. */
export const ERROR_CLASSES = {
  INVALID_REQUEST: InvalidRequestError,
  TRAINING_IN_PROGRESS: TrainingInProgressError,
  BLOCKED_TARGET: BlockedTargetError,
  IMAGE_NOT_FOUND: ImageNotFoundError,
  IMAGE_INVALID: ImageInvalidError,
  TOO_FEW_IMAGES: TooFewImagesError,
  ACCESS_DENIED: AccessDeniedError,
  STORAGE_UNAVAILABLE: StorageUnavailableError,
  CHECKSUM_MISMATCH: ChecksumMismatchError,
  CHECKPOINT_INCOMPATIBLE: CheckpointIncompatibleError,
  WORKER_SHUTDOWN: WorkerShutdownError,
  POD_LOST: PodLostError,
  GPU_FAULT: GpuFaultError,
  GPU_OUT_OF_MEMORY: GpuOutOfMemoryError,
  TRAINING_STALLED: TrainingStalledError,
  LOSS_NOT_FINITE: LossNotFiniteError,
  MODEL_LOAD_FAILED: ModelLoadFailedError,
  WEBHOOK_UNAVAILABLE: WebhookUnavailableError,
  WEBHOOK_REJECTED: WebhookRejectedError,
  WEBHOOK_UNAUTHORIZED: WebhookUnauthorizedError,
  CANCELLED: CancelledError,
  INTERNAL: InternalError,
} as const;

/**
 * Turns anything thrown into one of our errors.
 *
 * @param error - what a `catch` received
 * @returns the error itself when it is ours, else an `InternalError` with it as cause
 */
export function toBrushworkError(error: unknown): BrushworkError {
  if (error instanceof BrushworkError) return error;
  const message = error instanceof Error ? error.message : String(error);
  return new InternalError(`Unexpected error: ${message}. Please report it with the log of this job.`, {
    cause: error,
  });
}
