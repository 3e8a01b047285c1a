import { ServiceError, isGrpcServiceError } from '@temporalio/client';
import { InternalError } from '../common/errors.ts';

const GRPC_INVALID_ARGUMENT = 3;

/** Thrown when Temporal can't be reached or can't take the start now: the message stays where it is. */
export class TemporalUnavailableError extends Error {
  override readonly name = 'TemporalUnavailableError';
}

/** Tells whether Temporal refuses what was asked, not for now but as such. */
export function isInvalidArgument(error: unknown): boolean {
  const cause = error instanceof ServiceError ? error.cause : error;
  return isGrpcServiceError(cause) && Number(cause.code) === GRPC_INVALID_ARGUMENT;
}

/** A job that Temporal will never take must not be tried for ever; everything else is worth another try. */
export function toStartError(error: unknown): Error {
  if (error instanceof TemporalUnavailableError) return error;
  if (isInvalidArgument(error)) {
    return new InternalError('Temporal refused the start of this job as malformed: see the cause in the log.', {
      cause: error,
    });
  }
  return new TemporalUnavailableError('Temporal did not take the start.', { cause: error });
}
