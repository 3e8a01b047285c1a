import type { MockActivityEnvironment } from '@temporalio/testing';

/** Collects the details of all heartbeats. */
export function heartbeatsOf(environment: MockActivityEnvironment): unknown[] {
  const details: unknown[] = [];
  environment.on('heartbeat', (detail: unknown) => details.push(detail));
  return details;
}

/** Waits until `done`. */
export async function until(done: () => boolean, what: string, timeoutMs = 3000): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!done()) {
    if (Date.now() > deadline) throw new Error(`Waited in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
