import assert from 'node:assert/strict';
import {
  BrushworkError,
  ERROR_CLASSES,
  InternalError,
  StorageUnavailableError,
  WebhookUnavailableError,
  toBrushworkError,
} from '../../../common/errors.ts';
import type { ErrorCode } from '../../../common/errors.ts';

/** Written out by hand: what the backend and operators rely on must not change with a class by accident. */
const EXPECTED: Record<ErrorCode, { name: string; retryable: boolean }> = {
  INVALID_REQUEST: { name: 'InvalidRequestError', retryable: false },
  TRAINING_IN_PROGRESS: { name: 'TrainingInProgressError', retryable: false },
  BLOCKED_TARGET: { name: 'BlockedTargetError', retryable: false },
  IMAGE_NOT_FOUND: { name: 'ImageNotFoundError', retryable: false },
  IMAGE_INVALID: { name: 'ImageInvalidError', retryable: false },
  TOO_FEW_IMAGES: { name: 'TooFewImagesError', retryable: false },
  ACCESS_DENIED: { name: 'AccessDeniedError', retryable: false },
  STORAGE_UNAVAILABLE: { name: 'StorageUnavailableError', retryable: true },
  CHECKSUM_MISMATCH: { name: 'ChecksumMismatchError', retryable: true },
  CHECKPOINT_INCOMPATIBLE: { name: 'CheckpointIncompatibleError', retryable: false },
  WORKER_SHUTDOWN: { name: 'WorkerShutdownError', retryable: true },
  POD_LOST: { name: 'PodLostError', retryable: true },
  GPU_FAULT: { name: 'GpuFaultError', retryable: true },
  GPU_OUT_OF_MEMORY: { name: 'GpuOutOfMemoryError', retryable: true },
  TRAINING_STALLED: { name: 'TrainingStalledError', retryable: true },
  LOSS_NOT_FINITE: { name: 'LossNotFiniteError', retryable: true },
  MODEL_LOAD_FAILED: { name: 'ModelLoadFailedError', retryable: true },
  WEBHOOK_UNAVAILABLE: { name: 'WebhookUnavailableError', retryable: true },
  WEBHOOK_REJECTED: { name: 'WebhookRejectedError', retryable: false },
  WEBHOOK_UNAUTHORIZED: { name: 'WebhookUnauthorizedError', retryable: true },
  CANCELLED: { name: 'CancelledError', retryable: false },
  INTERNAL: { name: 'InternalError', retryable: true },
};

describe('errors', () => {
  for (const [code, expected] of Object.entries(EXPECTED)) {
    it(`${code} is ${expected.name}, ${expected.retryable ? 'worth another try' : 'final'}`, () => {
      const cause = new Error('below');
      const error = new ERROR_CLASSES[code as ErrorCode]('what happened', { cause });
      assert.ok(error instanceof BrushworkError);
      assert.deepEqual(
        { code: error.code, name: error.name, retryable: error.retryable, message: error.message },
        { code, ...expected, message: 'what happened' },
      );
      assert.equal(error.cause, cause);
    });
  }

  it('has a class for every code and no other', () => {
    assert.deepEqual(Object.keys(ERROR_CLASSES).sort(), Object.keys(EXPECTED).sort());
  });

  it('keeps the wait that the backend asked for', () => {
    assert.equal(new WebhookUnavailableError('later', { retryAfterMs: 5000 }).retryAfterMs, 5000);
    assert.equal(new WebhookUnavailableError('later').retryAfterMs, null);
  });
});

describe('toBrushworkError', () => {
  it('leaves our own errors alone', () => {
    const error = new StorageUnavailableError('down');
    assert.equal(toBrushworkError(error), error);
  });

  it('turns anything else into INTERNAL and keeps it as the cause', () => {
    const bug = new TypeError('x is undefined');
    const error = toBrushworkError(bug);
    assert.ok(error instanceof InternalError);
    assert.equal(error.cause, bug);
    assert.match(error.message, /x is undefined/);
    assert.match(toBrushworkError('a string').message, /a string/);
  });
});
