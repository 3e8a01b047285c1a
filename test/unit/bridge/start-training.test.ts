import assert from 'node:assert/strict';
import { WorkflowNotFoundError } from '@temporalio/client';
import type { Client, WorkflowStartOptions } from '@temporalio/client';
import { parseJobMessage } from '../../../bridge/envelope.ts';
import { TrainingStarter } from '../../../bridge/start-training.ts';
import { TemporalUnavailableError } from '../../../bridge/temporal-errors.ts';
import { loadConfig } from '../../../common/config.ts';
import { InvalidRequestError } from '../../../common/errors.ts';
import { createLogger } from '../../../common/logger.ts';
import type { RefusalInput, TrainStyleMemo } from '../../../common/types.ts';
import { ENVIRONMENT } from '../common/support/config.ts';

const CALL_MS = 1_000;
const IMAGES = Array.from({ length: 12 }, (_, index) => `s3://pictures/${index}.jpg`);

interface Training {
  memo: Partial<TrainStyleMemo>;
  status?: 'RUNNING' | 'FAILED';
  closedAtMs?: number;
}

/** Temporal as far as starts need it: the newest training of style 7, what it lists of earlier ones, and what is started. */
class FakeTemporal {
  newest: Training | null = null;
  listed: () => { memo: Partial<TrainStyleMemo> }[] = () => [];
  /** Called when the newest training has been looked at. */
  looked: () => Promise<void> = () => Promise.resolve();
  readonly starts: { type: string; options: WorkflowStartOptions }[] = [];

  asClient(): Client {
    const workflow = {
      getHandle: () => ({ describe: () => this.#describe() }),
      list: () => this.#list(),
      start: (type: string, options: WorkflowStartOptions) => Promise.resolve(void this.starts.push({ type, options })),
    };
    const withDeadline = (_deadline: number, call: () => Promise<unknown>) => call();
    return { workflow, withDeadline } as unknown as Client;
  }

  /** The newest task remembers these before it; they have all ended. */
  ran(taskId: string, ...earlierTaskIds: string[]): void {
    this.newest = { memo: { taskId, earlierTaskIds }, status: 'FAILED' };
  }

  startedMemo(): unknown {
    return this.starts.at(-1)?.options.memo;
  }

  startedInput<Input>(): Input {
    const [input] = this.starts.at(-1)?.options.args as [Input];
    return input;
  }

  async #describe(): Promise<unknown> {
    await this.looked();
    if (this.newest === null) throw new WorkflowNotFoundError('none', 'train-style-7', undefined);
    const { memo, status = 'FAILED', closedAtMs } = this.newest;
    return { memo, status: { name: status }, ...(closedAtMs !== undefined && { closeTime: new Date(closedAtMs) }) };
  }

  async *#list(): AsyncIterable<unknown> {
    yield* this.listed();
  }
}

describe('TrainingStarter', () => {
  let temporal: FakeTemporal;
  let starter: TrainingStarter;

  beforeEach(() => {
    temporal = new FakeTemporal();
    const logger = createLogger({ level: 'silent' as 'info' });
    starter = new TrainingStarter(temporal.asClient(), loadConfig({ env: ENVIRONMENT }), logger, CALL_MS);
  });

  const parse = (message: object) => parseJobMessage(Buffer.from(JSON.stringify(message)));
  const flat = { style_id: 7, image_urls: IMAGES, webhook_url: 'https://api.example.com' };
  const task = (taskId: string) => parse({ ...flat, task_id: taskId });
  const unnamed = () => parse(flat);
  const start = (taskId: string, isRedelivered = false) => starter.start(task(taskId), isRedelivered);

  it('has each training remember the tasks of its style before it', async () => {
    assert.equal(await start('a'), 'started');
    assert.deepEqual(temporal.startedMemo(), { taskId: 'a', earlierTaskIds: [] });
    temporal.ran('b', 'a');
    assert.equal(await start('c'), 'started');
    assert.deepEqual(temporal.startedMemo(), { taskId: 'c', earlierTaskIds: ['b', 'a'] });
  });

  it('goes on from a training of before, which remembers its own task alone', async () => {
    temporal.newest = { memo: { taskId: 'a' } };
    await start('b');
    assert.deepEqual(temporal.startedMemo(), { taskId: 'b', earlierTaskIds: ['a'] });
  });

  it('has a training remember the newest 50 tasks', async () => {
    const earlier = Array.from({ length: 50 }, (_, index) => `task-${index}`);
    temporal.ran('newest', ...earlier);
    await start('next');
    assert.deepEqual(temporal.startedMemo(), { taskId: 'next', earlierTaskIds: ['newest', ...earlier.slice(0, 49)] });
  });

  for (const status of ['RUNNING', 'FAILED'] as const) {
    it(`does not train a task again over a newer one that is ${status}: a redelivered task did`, async () => {
      temporal.newest = { memo: { taskId: 'b', earlierTaskIds: ['a'] }, status };
      for (const isRedelivered of [true, false]) assert.equal(await start('a', isRedelivered), 'ran before');
      assert.deepEqual(temporal.starts, []);
    });
  }

  it('knows a task that only the list of trainings has', async () => {
    temporal.ran('b');
    temporal.listed = () => [{ memo: { taskId: 'b' } }, { memo: { taskId: 'a' } }];
    assert.equal(await start('a'), 'ran before');
    assert.equal(await start('c'), 'started');
  });

  it('starts a task where Temporal can not list trainings', async () => {
    temporal.ran('b', 'a');
    temporal.listed = () => {
      throw new Error('no visibility store');
    };
    assert.equal(await start('c'), 'started');
    assert.equal(await start('a'), 'ran before');
  });

  it('refuses a task that never ran while another one trains', async () => {
    temporal.newest = { memo: { taskId: 'b', earlierTaskIds: ['a'] }, status: 'RUNNING' };
    await assert.rejects(start('c'), { code: 'TRAINING_IN_PROGRESS' });
  });

  it('takes a message without a task id for a new order, unless it runs, ran last, or comes a second time', async () => {
    const { taskId } = unnamed();
    temporal.ran(taskId);
    assert.equal(await starter.start(unnamed(), false), 'duplicate');
    temporal.ran('b', taskId);
    await assert.rejects(starter.start(unnamed(), true), { code: 'INVALID_REQUEST', message: /second time/ });
    assert.deepEqual(temporal.starts, []);
    assert.equal(await starter.start(unnamed(), false), 'started');
    assert.deepEqual(temporal.startedMemo(), { taskId, earlierTaskIds: ['b', taskId] });
  });

  it('starts nothing by what it saw before its process stood still: another bridge may have been there since', async () => {
    const realNow = performance.now.bind(performance);
    let stoodStillMs = 0;
    performance.now = () => realNow() + stoodStillMs;
    try {
      temporal.listed = () => {
        stoodStillMs += 60_000;
        return [];
      };
      temporal.ran('z');
      await assert.rejects(start('a'), TemporalUnavailableError);
      assert.deepEqual(temporal.starts, []);
      temporal.listed = () => [];
      assert.equal(await start('a'), 'started');
    } finally {
      performance.now = realNow;
    }
  });

  describe('a refusal', () => {
    const content = Buffer.from(JSON.stringify({ ...flat, image_urls: 'none' }));
    const refusal = new InvalidRequestError('No.');
    const tell = (firstSeenMs: number | null) => starter.tellRefusal(content, refusal, firstSeenMs);

    it('is told', async () => {
      temporal.ran('a');
      assert.equal(await tell(null), true);
      assert.equal(temporal.starts[0]?.type, 'tellRefusal');
    });

    it('that was put back is not told when the style was trained after it came first', async () => {
      temporal.newest = { memo: { taskId: 'a' }, closedAtMs: 2_000 };
      assert.equal(await tell(1_000), false);
      assert.deepEqual(temporal.starts, []);
      assert.equal(await tell(3_000), true);
      assert.equal(temporal.startedInput<RefusalInput>().firstSeenMs, 3_000);
    });

    it('of an unclear repetition is not told: the backend heard of that training', async () => {
      temporal.ran('b', unnamed().taskId);
      const unclear = await starter.start(unnamed(), true).catch((error: unknown) => error);
      const same = Buffer.from(JSON.stringify(flat));
      assert.equal(await starter.tellRefusal(same, unclear as InvalidRequestError, null), false);
    });
  });
});
