import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { checkRecord, recordOf, writeRecord } from '../../../cli/run-record.ts';
import type { RunRecord } from '../../../cli/run-record.ts';
import { CheckpointIncompatibleError } from '../../../common/errors.ts';
import { trainingConfig } from '../../support/training-config.ts';
import { jobOf } from './support/job.ts';

describe('run record', () => {
  let directory: string;
  let file: string;
  const write = (name: string, content: string): void => writeFileSync(path.join(directory, name), content);
  const current = (fallbackCaption = 'a picture', baseModel = 'f00') =>
    recordOf(jobOf({ imageDirectory: directory, fallbackCaption }), baseModel);

  beforeEach(async () => {
    directory = mkdtempSync(path.join(tmpdir(), 'run-record-'));
    file = path.join(directory, 'checkpoint.json');
    write('a.jpg', 'one');
    write('a.txt', 'caption');
    write('b.png', 'two');
    await writeRecord(file, await current(), ['5a']);
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  async function refusal(record: Parameters<typeof checkRecord>[1]): Promise<string> {
    try {
      await checkRecord(file, record);
    } catch (error) {
      assert.ok(error instanceof CheckpointIncompatibleError);
      return error.message;
    }
    return 'accepted';
  }

  it('accepts the same run, whatever else lies in the directory', async () => {
    write('notes.md', 'no picture');
    assert.equal(await refusal(await current()), 'accepted');
  });

  it('gives back the hashes of the checkpoints, and null where an older version wrote none', async () => {
    assert.deepEqual(await checkRecord(file, await current()), ['5a']);
    write('checkpoint.json', JSON.stringify(await current()));
    assert.equal(await checkRecord(file, await current()), null);
  });

  it('names everything that differs', async () => {
    write('b.png', 'another');
    write('c.webp', 'three');
    const message = await refusal(await current('another caption', 'bad'));
    assert.match(
      message,
      /made from another base model; other pictures: b\.png, c\.webp; other captions: b\.png, c\.webp\. Undo the change/,
    );
  });

  it('notices a caption that changed, and the fallback only where it counts', async () => {
    write('a.txt', 'other');
    assert.match(await refusal(await current()), /from other captions: a\.jpg\./);
    write('a.txt', 'caption');
    write('b.txt', 'its own');
    assert.match(await refusal(await current()), /from other captions: b\.png\./);
  });

  it('notices a configuration that makes something else of the same pictures and captions', async () => {
    const config = trainingConfig({ resolutionPx: 128, resizeMode: 'stretch', triggerWord: 'inkwash' });
    const changed = await recordOf(jobOf({ imageDirectory: directory, config }), 'f00');
    assert.match(await refusal(changed), /made from another resize_mode, resolution, trigger_word\. Undo the change/);
  });

  it('accepts the record of a version that did not know about that', async () => {
    const older: Partial<RunRecord> = await current();
    delete older.preparation;
    write('checkpoint.json', JSON.stringify(older));
    assert.equal(await refusal(await current()), 'accepted');
  });

  it('tells a flipped bit of the record from other pictures', async () => {
    const text = readFileSync(file, 'utf8');
    const [, hash = ''] = /"a\.jpg": "([0-9a-f]+)"/.exec(text) ?? [];
    write('checkpoint.json', text.replace(hash, hash.startsWith('0') ? `1${hash.slice(1)}` : `0${hash.slice(1)}`));
    assert.match(await refusal(await current()), /checkpoint\.json, .*, is damaged: .* not what its digest says/);
  });

  it('refuses without a record, or with half of one, and tells which', async () => {
    for (const content of ['{"baseModel":', '', 'null', '{"baseModel": "f00", "pictures": {}}']) {
      write('checkpoint.json', content);
      assert.match(await refusal(await current()), /checkpoint\.json, .*, is damaged: .* another output directory\.$/);
    }
    rmSync(file);
    assert.match(
      await refusal(await current()),
      /checkpoint\.json, .*, does not exist: .* another output directory\.$/,
    );
  });
});
