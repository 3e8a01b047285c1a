import assert from 'node:assert/strict';
import { ApplicationFailure, CancelledFailure } from '@temporalio/common';
import { toApplicationFailure } from '../../../activities/to-application-failure.ts';
import { ERROR_CLASSES, WebhookUnavailableError } from '../../../common/errors.ts';
import type { ErrorCode } from '../../../common/errors.ts';

describe('toApplicationFailure', () => {
  for (const code of Object.keys(ERROR_CLASSES) as ErrorCode[]) {
    it(`keeps code and retryability of ${code}`, () => {
      const error = new ERROR_CLASSES[code]('What happened and what to do.');
      const failure = toApplicationFailure(error);
      assert.ok('type' in failure);
      assert.equal(failure.type, code);
      assert.equal(failure.nonRetryable, !error.retryable);
      assert.equal(failure.message, error.message);
      assert.equal(failure.category, code === 'WORKER_SHUTDOWN' ? 'BENIGN' : undefined);
    });
  }

  it('passes on how long the backend asks us to wait', () => {
    const failure = toApplicationFailure(new WebhookUnavailableError('Busy.', { retryAfterMs: 7000 }));
    assert.ok(failure instanceof ApplicationFailure);
    assert.deepEqual(failure.details, [{ retryAfterMs: 7000 }]);
  });

  it('does not carry the cause into the history', () => {
    const cause = new Error('https://user:secret@host');
    assert.equal(toApplicationFailure(new ERROR_CLASSES.STORAGE_UNAVAILABLE('Down.', { cause })).cause, undefined);
  });

  it('lets a cancellation stay one', () => {
    const cancelled = new CancelledFailure('CANCELLED');
    assert.equal(toApplicationFailure(cancelled), cancelled);
  });

  it('takes anything unknown for a bug of ours', () => {
    const failure = toApplicationFailure(new TypeError('x is not a function'));
    assert.ok('type' in failure);
    assert.equal(failure.type, 'INTERNAL');
  });
});
