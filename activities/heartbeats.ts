import { Context } from '@temporalio/activity';

const BEATS_PER_LIMIT = 5;

/**
 * Sends heartbeats while `work` runs: for work that shows no progress of its own.
 *
 * @param beatMs - pause between two
 */
export async function withHeartbeats<Result>(beatMs: number, work: () => Promise<Result>): Promise<Result> {
  const context = Context.current();
  const timer = setInterval(() => context.heartbeat(), beatMs);
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}

/**
 * Wraps an activity: it sends heartbeats often enough for the limit that its job gives it, so that a worker that is gone is
 * noticed within that limit and not only when the time for the whole attempt is over. Without a limit it sends none.
 *
 * @param activity - the work
 */
export function beating<Input, Result>(activity: (input: Input) => Promise<Result>): (input: Input) => Promise<Result> {
  return (input) => {
    const limitMs = Context.current().info.heartbeatTimeoutMs ?? 0;
    return limitMs === 0 ? activity(input) : withHeartbeats(limitMs / BEATS_PER_LIMIT, () => activity(input));
  };
}
