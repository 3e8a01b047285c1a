import type { CopyObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3';
import type { StoreCallOptions } from '../common/object-store.ts';

/**
 * Has a write ask before each of its tries: the client repeats by itself what failed, and a process that was frozen in the
 * pause before that may have lost its right to write.
 *
 * @param command - not yet sent
 * @returns the same command
 */
export function askBeforeTry<Command extends PutObjectCommand | CopyObjectCommand>(
  command: Command,
  { checkBeforeTry }: StoreCallOptions,
): Command {
  if (checkBeforeTry === undefined) return command;
  const { middlewareStack } = command as PutObjectCommand;
  middlewareStack.add(
    (next) => (args) => {
      checkBeforeTry();
      return next(args);
    },
    // The last of the steps that the client takes anew for each try.
    { step: 'finalizeRequest', priority: 'low', name: 'askBeforeTry' },
  );
  return command;
}
