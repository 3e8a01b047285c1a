import assert from 'node:assert/strict';
import { Budgets, suspectsPod } from '../../../workflows/budgets.ts';
import type { Verdict } from '../../../workflows/budgets.ts';
import type { ErrorCode } from '../../../common/errors.ts';
import type { JobFailure } from '../../../workflows/failures.ts';

const lost: JobFailure = { kind: 'pod-lost', code: 'POD_LOST', message: '', retryable: true };
const shutdown: JobFailure = { kind: 'shutdown', code: 'WORKER_SHUTDOWN', message: '', retryable: true };
const error = (code: ErrorCode, retryable = true): JobFailure => ({
  kind: 'application',
  code,
  message: '',
  retryable,
});

describe('Budgets', () => {
  let budgets: Budgets;
  const judge = (failure: JobFailure, times: number): Verdict['action'][] =>
    Array.from({ length: times }, () => budgets.judge(failure).action);

  beforeEach(() => {
    budgets = new Budgets({ podLossBudget: 10, applicationAttempts: 3 });
  });

  it('replaces the first lost pod at once and waits longer for each further one', () => {
    const delays = Array.from({ length: 4 }, () => {
      const verdict = budgets.judge(lost);
      return verdict.action === 'retry' ? verdict.delayMs : null;
    });
    assert.deepEqual(delays, [0, 2000, 4000, 8000]);
  });

  it('asks an operator after ten lost pods in a row', () => {
    assert.deepEqual(judge(lost, 10), [...Array.from({ length: 9 }, () => 'retry'), 'ask-operator']);
  });

  it('forgives lost pods with every committed checkpoint', () => {
    for (let i = 0; i < 5; i++) {
      assert.ok(judge(lost, 9).every((action) => action === 'retry'));
      budgets.progressMade();
    }
  });

  it('never counts pods that leave in order', () => {
    assert.ok(judge(shutdown, 100).every((action) => action === 'retry'));
  });

  it('gives an application error three attempts', () => {
    assert.deepEqual(judge(error('INTERNAL'), 3), ['retry', 'retry', 'fail']);
  });

  it('keeps lost pods and application errors apart', () => {
    judge(lost, 9);
    assert.deepEqual(judge(error('INTERNAL'), 3), ['retry', 'retry', 'fail']);
    assert.deepEqual(judge(lost, 1), ['ask-operator']);
  });

  it('counts each kind of error by itself', () => {
    judge(error('STORAGE_UNAVAILABLE'), 5);
    assert.deepEqual(judge(error('GPU_FAULT'), 1), ['retry']);
  });

  it('repeats what rarely heals only once', () => {
    assert.deepEqual(judge(error('GPU_OUT_OF_MEMORY'), 2), ['retry', 'fail']);
    assert.deepEqual(judge(error('LOSS_NOT_FINITE'), 2), ['retry', 'fail']);
  });

  for (const code of ['STORAGE_UNAVAILABLE', 'ACCESS_DENIED'] as const) {
    it(`is patient with a store that is down or refuses its keys (${code})`, () => {
      assert.ok(judge(error(code), 30).every((action) => action === 'retry'));
      assert.ok(judge(error(code), 10).includes('fail'));
    });
  }

  it('lets another pod try every eighth time that the store can not be reached', () => {
    const failure = error('STORAGE_UNAVAILABLE');
    const elsewhere = Array.from({ length: 17 }, () => {
      const isEnough = budgets.isEnoughOfPod(failure);
      budgets.judge(failure);
      return isEnough;
    });
    assert.deepEqual(
      elsewhere.flatMap((is, index) => (is ? index + 1 : [])),
      [8, 16],
    );
    const others = Array.from({ length: 17 }, () => {
      budgets.judge(error('INTERNAL'));
      return budgets.isEnoughOfPod(error('INTERNAL'));
    });
    assert.ok(!others.includes(true));
  });

  it('fails at once on what can not pass', () => {
    assert.deepEqual(judge(error('IMAGE_INVALID', false), 1), ['fail']);
  });

  it('doubts the pod only for errors of the machine', () => {
    assert.ok(suspectsPod('GPU_FAULT'));
    assert.ok(!suspectsPod('STORAGE_UNAVAILABLE'));
  });
});
