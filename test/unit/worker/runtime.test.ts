import assert from 'node:assert/strict';
import { ApplicationFailure } from '@temporalio/common';
import { createLogger } from '../../../common/logger.ts';
import { jobLogInterceptor } from '../../../worker/job-log.ts';
import { unlessAborted } from '../../../worker/run-until-aborted.ts';
import { temporalLogger } from '../../../worker/runtime.ts';

describe('temporalLogger', () => {
  function logged(level: 'info' | 'debug' = 'info') {
    const lines: Record<string, unknown>[] = [];
    const write = (line: string) => void lines.push(JSON.parse(line) as Record<string, unknown>);
    return { logger: temporalLogger(createLogger({ level, destination: { write } })), lines };
  }

  it('writes levels, fields and errors as the rest of the service does', () => {
    const { logger, lines } = logged();
    logger.log('WARN', 'Activity failed', {
      style: 7,
      taskToken: 'x',
      sdkComponent: 'worker',
      error: new Error('boom'),
    });
    const [line] = lines;
    assert.deepEqual([line?.['level'], line?.['msg'], line?.['style']], ['warn', 'Activity failed', 7]);
    assert.equal((line?.['err'] as { message: string }).message, 'boom');
    assert.ok(!('taskToken' in (line ?? {})) && !('sdkComponent' in (line ?? {})));
  });

  it('names the error code of a failure, or of its cause, as the bridge does: pino shows its class alone', () => {
    const { logger, lines } = logged();
    const failure = ApplicationFailure.create({ message: 'The disk is full.', type: 'GPU_FAULT' });
    logger.warn('Activity failed', { error: failure });
    logger.warn('Workflow failed', { error: new Error('Activity task failed', { cause: failure }) });
    logger.warn('Activity failed', { error: ApplicationFailure.create({ message: 'boom', type: 'TypeError' }) });
    assert.deepEqual(
      lines.map(({ code }) => code),
      ['GPU_FAULT', 'GPU_FAULT', undefined],
    );
  });

  it('keeps what is said at every start out of the log', () => {
    const { logger, lines } = logged();
    logger.warn('No workflows registered, not polling for workflow tasks');
    logger.info('Worker state changed');
    assert.deepEqual(lines, []);
  });
});

describe('jobLogInterceptor', () => {
  it('names style, task and pod in each line of an activity', async () => {
    const { inbound, outbound } = jobLogInterceptor('gpu-7')({} as never);
    await inbound?.execute?.({ args: [{ styleId: 7, taskId: 't' }], headers: {} }, () => Promise.resolve());
    const attributes = outbound?.getLogAttributes?.({ attempt: 1 }, (given) => given);
    assert.deepEqual(attributes, { attempt: 1, style: 7, task: 't', pod: 'gpu-7' });
  });
});

describe('unlessAborted', () => {
  it('waits for the work', async () => {
    assert.equal(await unlessAborted(new AbortController().signal, Promise.resolve(1)), 1);
  });

  it('ends with the signal', async () => {
    const stop = new AbortController();
    const waiting = unlessAborted(stop.signal, new Promise(() => undefined));
    stop.abort(new Error('stop'));
    await assert.rejects(waiting, /stop/);
    await assert.rejects(unlessAborted(stop.signal, Promise.resolve(1)), /stop/);
  });
});
