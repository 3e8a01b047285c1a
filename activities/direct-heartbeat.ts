import { Context } from '@temporalio/activity';
import {
  ActivityCancelledError,
  ActivityNotFoundError,
  ActivityPausedError,
  ActivityResetError,
} from '@temporalio/client';

/** Answers by which the server takes a heartbeat; what they say comes through the activity's context as well. */
const TAKEN = [ActivityCancelledError, ActivityPausedError, ActivityResetError];

/**
 * Sends a heartbeat of this activity past the SDK's throttle, to learn what the server thinks of it.
 *
 * @param limitMs - of the whole call
 * @returns `unknown` when the server does not know this attempt any more: the run has ended, or goes on without it
 * @throws what the call fails with when the server can't be reached in time
 */
export async function heartbeatDirectly(limitMs: number): Promise<'taken' | 'unknown'> {
  const { client, info } = Context.current();
  try {
    await client.withDeadline(Date.now() + limitMs, () => client.activity.heartbeat(info.taskToken));
    return 'taken';
  } catch (error) {
    if (error instanceof ActivityNotFoundError) return 'unknown';
    if (TAKEN.some((answer) => error instanceof answer)) return 'taken';
    throw error;
  }
}
