import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { historyFromJSON } from '@temporalio/common/lib/proto-utils.js';
import { Worker } from '@temporalio/worker';
import type { TrainStyleInput } from '../../common/types.ts';
import { bundle, quietRuntime } from './support/harness.ts';

interface StartedAttributes {
  input: { payloads: { data: string }[] };
}

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

  it('knows a lost pod, a cancelled job, one that looks at its pictures first, a refusal, and a store that is down', () => {
    const later = ['inspected.json', 'pod-lost.json', 'refused.json', 'store-down.json'];
    assert.deepEqual(names, ['cancelled.json', 'control-store-down-1.json', 'control-store-down-2.json', ...later]);
    const scheduled = (name: string) =>
      recorded(name).events?.some(
        ({ activityTaskScheduledEventAttributes: task }) => task?.activityType?.name === 'inspectPictures',
      );
    assert.deepEqual(names.map(scheduled), [false, true, true, true, false, false, true]);
    assert.ok(recorded('pod-lost.json').events?.some((event) => event.activityTaskTimedOutEventAttributes));
    const failedDownloads = recorded('store-down.json').events?.filter(
      (event) => event.activityTaskFailedEventAttributes,
    );
    assert.equal(failedDownloads?.length, 9);
    assert.ok(recorded('cancelled.json').events?.some((event) => event.workflowExecutionCanceledEventAttributes));
  });

  for (const name of names) {
    it(`takes the same decisions as in ${name}`, async () => {
      await Worker.runReplayHistory(options, recorded(name));
    });
  }

  it('takes up a job that a newer bridge gave to an older control worker', async () => {
    const withLimits = (text: string) => {
      const history = JSON.parse(text) as { events: { workflowExecutionStartedEventAttributes: StartedAttributes }[] };
      const [payload] = history.events[0]?.workflowExecutionStartedEventAttributes.input.payloads ?? [];
      assert.ok(payload);
      const input = JSON.parse(Buffer.from(payload.data, 'base64').toString()) as TrainStyleInput;
      input.settings.limits.inspectPictures = input.settings.limits.download;
      payload.data = Buffer.from(JSON.stringify(input)).toString('base64');
      return JSON.stringify(history);
    };
    await Worker.runReplayHistory(options, recorded('pod-lost.json', withLimits));
  });

  it('notices a history that this code would not have made', async () => {
    const other = recorded('pod-lost.json', (text) => text.replaceAll('"findResumePoint"', '"lookAround"'));
    await assert.rejects(Worker.runReplayHistory(options, other), /[Nn]ondeterminism/);
  });
});
