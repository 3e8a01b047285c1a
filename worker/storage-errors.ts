import { S3ServiceException } from '@aws-sdk/client-s3';
import { AccessDeniedError, BrushworkError, InternalError, StorageUnavailableError } from '../common/errors.ts';

/** Codes by which S3-compatible stores say that credentials or rights are missing. */
const DENIED = new Set([
  'AccessDenied',
  'AllAccessDisabled',
  'AccountProblem',
  'ExpiredToken',
  'InvalidAccessKeyId',
  'InvalidToken',
  'NoSuchBucket',
  'PermanentRedirect',
  'SignatureDoesNotMatch',
  'UnauthorizedAccess',
]);

/** Codes that mean "later", whatever status they come with. */
const LATER = new Set([
  'BadDigest',
  'ConditionalRequestConflict',
  'IncompleteBody',
  'InternalError',
  'OperationAborted',
  'RequestTimeout',
  'ServiceUnavailable',
  'SlowDown',
  'Throttling',
  'ThrottlingException',
  'TooManyRequests',
]);

/** Codes of errors of our own disk, which are none of the store's doing. */
const DISK = new Set([
  ...['EACCES', 'EDQUOT', 'EEXIST', 'EIO', 'EISDIR', 'EMFILE'],
  ...['ENAMETOOLONG', 'ENOENT', 'ENOSPC', 'ENOTDIR', 'EROFS'],
]);

const statusOf = (error: S3ServiceException) => error.$metadata.httpStatusCode ?? 0;

/** True when the store says that there is no such object (not: no such bucket). */
export function isMissingObject(error: unknown): boolean {
  if (!(error instanceof S3ServiceException) || error.name === 'NoSuchBucket') return false;
  return error.name === 'NoSuchKey' || error.name === 'NotFound' || statusOf(error) === 404;
}

/** True when a condition does not hold: a key that a write wants free is taken, an object that is read on has changed. */
export function isPreconditionFailed(error: unknown): boolean {
  return error instanceof S3ServiceException && (error.name === 'PreconditionFailed' || statusOf(error) === 412);
}

/** True for errors of this machine's file system. */
export function isDiskError(error: unknown): error is Error & { code: string } {
  return (
    error instanceof Error &&
    'code' in error &&
    typeof error.code === 'string' &&
    DISK.has(error.code) &&
    'syscall' in error &&
    error.syscall !== 'connect'
  );
}

/**
 * Says in our own errors what went wrong with the store.
 *
 * @param error - what the client threw
 * @param action - what was tried, e.g. `reading s3://bucket/key`
 */
export function toStorageError(error: unknown, action: string): BrushworkError {
  if (error instanceof BrushworkError) return error;
  if (error instanceof S3ServiceException) {
    const status = statusOf(error);
    if (error.name === 'RequestTimeTooSkewed') {
      // The client has learnt the store's time by this answer and allows for it from now on. It repeats no upload by itself, and
      // nothing at all where the clock has just been put right.
      return new StorageUnavailableError(
        `The store refused ${action}: this machine's clock is wrong, or was set just now. Set it by NTP.`,
        { cause: error },
      );
    }
    if (error.name === 'NoSuchBucket') {
      const message = `The store has no such bucket for ${action}: create it, or correct its name.`;
      return new AccessDeniedError(message, { cause: error, retryable: true });
    }
    if (!LATER.has(error.name) && (DENIED.has(error.name) || status === 401 || status === 403)) {
      return new AccessDeniedError(
        `The store refused ${action} (${error.name}, status ${status}): check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the rights of that key.`,
        { cause: error, retryable: true },
      );
    }
    const isOurFault = status >= 400 && status < 500 && status !== 408 && status !== 429;
    if (isOurFault && !LATER.has(error.name)) {
      return new InternalError(`The store can't make sense of ${action} (${error.name}, status ${status}).`, {
        cause: error,
      });
    }
    return new StorageUnavailableError(`The store can't serve ${action} now (${error.name}, status ${status}).`, {
      cause: error,
    });
  }
  if (isDiskError(error)) {
    const remedy =
      error.code === 'ENOSPC' || error.code === 'EDQUOT' ? 'Free some disk space' : 'Check the work directory';
    return new InternalError(`The disk failed while ${action}: ${error.message}. ${remedy}.`, { cause: error });
  }
  const reason = error instanceof Error ? error.message : String(error);
  return new StorageUnavailableError(`The store did not answer ${action}: ${reason}.`, { cause: error });
}
