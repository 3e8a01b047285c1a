import assert from 'node:assert/strict';
import { WorkflowFailedError } from '@temporalio/client';
import type { WorkflowHandle } from '@temporalio/client';
import { ActivityFailure, ApplicationFailure } from '@temporalio/common';
import type { World } from './world.ts';

/** Waits for a workflow that must not succeed, and returns why. */
export async function failureOf(handle: WorkflowHandle): Promise<Error> {
  try {
    await handle.result();
  } catch (error) {
    assert.ok(error instanceof WorkflowFailedError);
    assert.ok(error.cause);
    return error.cause;
  }
  assert.fail('The workflow was expected to fail.');
}

/** The error code that a failure carries. */
export function codeOf(error: Error): string | null | undefined {
  const cause = error instanceof ActivityFailure ? error.cause : error;
  assert.ok(cause instanceof ApplicationFailure, String(cause));
  return cause.type;
}

/** Asserts that the backend heard of the failure exactly once, and of nothing else. */
export function assertOneFailedNotice(world: World, errorCode: string): void {
  const [notice, ...more] = world.finalNotices();
  assert.ok(notice?.kind === 'failed', `expected a failed notice, got ${JSON.stringify(notice)}`);
  assert.equal(notice.errorCode, errorCode);
  assert.deepEqual(more, []);
}
