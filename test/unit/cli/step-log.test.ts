import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { StepLog } from '../../../cli/step-log.ts';
import { InvalidRequestError } from '../../../common/errors.ts';
import type { StepReport } from '../../../common/trainer.ts';

const STEPS_PER_EPOCH = 2;

function report(step: number): StepReport {
  const epoch = Math.floor(step / STEPS_PER_EPOCH);
  return { step, epoch, loss: (step + 1) / 8, timesteps: [step * 10], learningRate: 1e-4, durationMs: 1 };
}

describe('cli/step-log', () => {
  let directory: string;
  let file: string;

  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'brushwork-steps-'));
    file = path.join(directory, 'steps.jsonl');
  });
  afterEach(() => rmSync(directory, { recursive: true, force: true }));

  function write(stepsRun: number, steps: readonly number[]): StepLog {
    const log = new StepLog(file, stepsRun);
    for (const step of steps) log.append(report(step));
    log.close();
    return log;
  }

  it('writes a line for each step, with the keys of the contract', () => {
    write(0, [0, 1]);
    assert.equal(
      readFileSync(file, 'utf8'),
      '{"step":0,"epoch":0,"loss":0.125,"timesteps":[0],"learning_rate":0.0001}\n' +
        '{"step":1,"epoch":0,"loss":0.25,"timesteps":[10],"learning_rate":0.0001}\n',
    );
  });

  it('has each line on disk as soon as the step is done', () => {
    const log = new StepLog(file, 0);
    log.append(report(0));
    assert.equal(readFileSync(file, 'utf8').split('\n').length, 2);
    log.close();
  });

  it('begins anew where nothing is to be resumed', () => {
    write(0, [0, 1, 2]);
    write(0, [0]);
    assert.equal(readFileSync(file, 'utf8').trimEnd().split('\n').length, 1);
  });

  it('drops what was written after the checkpoint, and equals an undisturbed log in the end', () => {
    write(0, [0, 1, 2, 3]);
    const undisturbed = readFileSync(file, 'utf8');
    write(0, [0, 1, 2]);
    const log = write(2, [2, 3]);
    assert.equal(readFileSync(file, 'utf8'), undisturbed);
    assert.deepEqual(log.stepLosses, [0.125, 0.25, 0.375, 0.5]);
    assert.deepEqual(log.epochLosses, [0.1875, 0.4375]);
  });

  it('drops a line torn after the checkpoint', () => {
    write(0, [0, 1]);
    writeFileSync(file, `${readFileSync(file, 'utf8')}{"step":2,"ep`);
    write(2, [2]);
    assert.equal(readFileSync(file, 'utf8').trimEnd().split('\n').length, 3);
  });

  for (const [what, damage] of [
    ['is gone', null],
    ['is too short', (text: string) => text.split('\n').slice(0, 1).join('\n')],
    ['has a torn line', (text: string) => text.slice(0, -5)],
    ['lacks a step in the middle', (text: string) => text.replace('"step":1', '"step":7')],
  ] as const) {
    it(`refuses to resume where the file ${what}, and leaves it alone`, () => {
      write(0, [0, 1]);
      const damaged = damage?.(readFileSync(file, 'utf8')) ?? null;
      if (damaged === null) rmSync(file);
      else writeFileSync(file, damaged);
      assert.throws(
        () => new StepLog(file, 2),
        (error) =>
          error instanceof InvalidRequestError && error.message.includes(file) && /--resume/.test(error.message),
      );
      if (damaged !== null) assert.equal(readFileSync(file, 'utf8'), damaged);
    });
  }
});
