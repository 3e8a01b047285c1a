import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { historyFromJSON } from '@temporalio/common/lib/proto-utils.js';
import { Worker } from '@temporalio/worker';
import { bundle, quietRuntime } from './support/harness.ts';

const HISTORIES = join(import.meta.dirname, '../histories');
const names = readdirSync(HISTORIES).filter((name) => name.endsWith('.json'));

/** Reads a recorded history, changed by `edit`. */
function recorded(name: string, edit: (text: string) => string = (text) => text) {
  return historyFromJSON(JSON.parse(edit(readFileSync(join(HISTORIES, name), 'utf8'))));
}

describe('replay of recorded histories', function () {
  this.timeout(60_000);
  let options: Parameters<typeof Worker.runReplayHistory>[0];

  before(async () => {
    quietRuntime();
    options = { workflowBundle: await bundle() };
  });

  it('knows a job with a lost pod and a cancelled one', () => {
    assert.deepEqual(names, ['cancelled.json', 'pod-lost.json']);
    assert.ok(recorded('pod-lost.json').events?.some((event) => event.activityTaskTimedOutEventAttributes));
    assert.ok(recorded('cancelled.json').events?.some((event) => event.workflowExecutionCanceledEventAttributes));
  });

  for (const name of names) {
    it(`takes the same decisions as in ${name}`, async () => {
      await Worker.runReplayHistory(options, recorded(name));
    });
  }

  it('notices a history that this code would not have made', async () => {
    const other = recorded('pod-lost.json', (text) => text.replaceAll('"findResumePoint"', '"lookAround"'));
    await assert.rejects(Worker.runReplayHistory(options, other), /[Nn]ondeterminism/);
  });
});
