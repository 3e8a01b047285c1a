import { Context } from '@temporalio/activity';
import {
  ActivityCancelledError,
  ActivityNotFoundError,
  ActivityPausedError,
  ActivityResetError,
} from '@temporalio/client';

/** Answers by which the server takes a heartbeat; what they say comes through the activity's context as well. */
const TAKEN = [ActivityPausedError, ActivityResetError];

/**
 * What the server thinks of an attempt. `cancelled`: its job wants it no more. `unknown`: it does not know it any more, the run
 * has ended or goes on without it.
 */
export type Standing = 'taken' | 'cancelled' | 'unknown';

/**
 * Sends a heartbeat of this activity past the SDK's throttle, to learn what the server thinks of it.
 *
 * @param limitMs - of the whole call
 * @throws what the call fails with when the server can't be reached in time
 */
export async function heartbeatDirectly(limitMs: number): Promise<Standing> {
  const { client, info } = Context.current();
  try {
    await client.withDeadline(Date.now() + limitMs, () => client.activity.heartbeat(info.taskToken));
    return 'taken';
  } catch (error) {
    if (error instanceof ActivityNotFoundError) return 'unknown';
    if (error instanceof ActivityCancelledError) return 'cancelled';
    if (TAKEN.some((answer) => error instanceof answer)) return 'taken';
    throw error;
  }
}
