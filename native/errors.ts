import { ERROR_CLASSES, isErrorCode, type BrushworkError } from '../common/errors.ts';

/**
 * Turns an error of the addon into the class of `common/errors.ts` that it names. The native error stays its `cause`, and
 * the new one's stack shows the TypeScript call.
 *
 * @param error - what a call of the addon threw or rejected with
 * @returns our error, or `error` itself when it is none of the addon's (a `TypeError` for a bad argument, for example)
 */
export function convertNativeError(error: unknown): unknown {
  if (!(error instanceof Error) || !('code' in error) || !isErrorCode(error.code)) return error;
  const errorClass: new (message: string, options: { cause: unknown }) => BrushworkError = ERROR_CLASSES[error.code];
  return errorClass.name === error.name ? new errorClass(error.message, { cause: error }) : error;
}
