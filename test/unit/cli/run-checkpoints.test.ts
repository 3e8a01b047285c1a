import assert from 'node:assert/strict';
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { OutputDirectory } from '../../../cli/output-directory.ts';
import { RunCheckpoints } from '../../../cli/run-checkpoints.ts';
import type { RunRecord } from '../../../cli/run-record.ts';
import { ChecksumMismatchError } from '../../../common/errors.ts';
import { CountingTrainer } from './support/counting-trainer.ts';

const RECORD: RunRecord = { baseModel: 'f00', pictures: {}, captions: {}, preparation: {} };

describe('checkpoints of a run', () => {
  let directory: string;
  let trainer: CountingTrainer;
  let told: string[];

  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'run-checkpoints-'));
    trainer = new CountingTrainer();
    told = [];
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const at = (name: string): string => path.join(directory, name);
  const open = (resume = true): Promise<RunCheckpoints> =>
    RunCheckpoints.open(new OutputDirectory(directory, resume), RECORD, (line) => told.push(line));

  /** Saves after each of these steps, as a new run. */
  async function savedAt(...steps: number[]): Promise<RunCheckpoints> {
    const checkpoints = await open(false);
    assert.equal(checkpoints.newest, null);
    await checkpoints.writeRecord();
    for (const step of steps) {
      await trainer.train(step / 2, () => undefined, new AbortController().signal);
      await checkpoints.save(trainer);
    }
    return checkpoints;
  }

  function flipBit(name: string): void {
    const bytes = readFileSync(at(name));
    bytes[0] = (bytes[0] ?? 0) ^ 1;
    writeFileSync(at(name), bytes);
  }

  /** Steps of the checkpoint that a resume takes. */
  async function resumedAt(): Promise<number> {
    return Number(readFileSync((await open()).newest ?? assert.fail('nothing to go on from'), 'utf8'));
  }

  it('are the newest and the one before', async () => {
    await savedAt(20, 40, 60);
    assert.deepEqual(readdirSync(directory).sort(), [
      'checkpoint.json',
      'checkpoint.previous.safetensors',
      'checkpoint.safetensors',
    ]);
    assert.equal(await resumedAt(), 60);
    assert.deepEqual(told, []);
  });

  it('with a flipped bit in the newest go on from the one before, and say so', async () => {
    await savedAt(20, 40);
    flipBit('checkpoint.safetensors');
    assert.equal(await resumedAt(), 20);
    assert.match(told.join(), /checkpoint\.safetensors is damaged: going on from the checkpoint before it$/);
  });

  it('with a newest that the disk does not give back go on from the one before', async () => {
    await savedAt(20, 40);
    rmSync(at('checkpoint.safetensors'));
    // Reading it fails with EIO, for everybody.
    symlinkSync('/proc/self/mem', at('checkpoint.safetensors'));
    assert.equal(await resumedAt(), 20);
    assert.match(told.join(), /is damaged: going on/);
  });

  it('keep the one before while a run that goes on has not saved yet', async () => {
    await savedAt(20, 40);
    await (await open()).writeRecord();
    flipBit('checkpoint.safetensors');
    assert.equal(await resumedAt(), 20);
  });

  it('never keep a damaged one as the one before', async () => {
    await savedAt(20, 40);
    flipBit('checkpoint.safetensors');
    const resumed = await open();
    await trainer.train(30, () => undefined, new AbortController().signal);
    await resumed.save(trainer);
    flipBit('checkpoint.safetensors');
    assert.equal(await resumedAt(), 20);
  });

  it('are refused in words when all of them are damaged', async () => {
    await savedAt(20);
    flipBit('checkpoint.safetensors');
    await assert.rejects(
      open(),
      (error) => error instanceof ChecksumMismatchError && /Name another --output/.test(error.message),
    );
    rmSync(directory, { recursive: true });
    directory = mkdtempSync(path.join(tmpdir(), 'run-checkpoints-'));
    trainer = new CountingTrainer();
    await savedAt(20, 40);
    flipBit('checkpoint.safetensors');
    flipBit('checkpoint.previous.safetensors');
    await assert.rejects(open(), /safetensors and .*previous\.safetensors can't be gone on from/);
  });

  describe('of a run that is killed while it saves', () => {
    /** Saves once more, but what it renames stays where it was from the rename on that makes `file`. */
    async function killedBefore(file: string): Promise<void> {
      const checkpoints = await savedAt(20, 40);
      const before = readFileSync(at('checkpoint.safetensors'));
      const previous = readFileSync(at('checkpoint.previous.safetensors'));
      await trainer.train(30, () => undefined, new AbortController().signal);
      await checkpoints.save(trainer);
      // Undone, the last rename first.
      renameSync(at('checkpoint.safetensors'), at('checkpoint.safetensors.part'));
      if (file === 'checkpoint.safetensors') return;
      writeFileSync(at('checkpoint.safetensors'), before);
      writeFileSync(at('checkpoint.previous.safetensors'), previous);
    }

    for (const file of ['checkpoint.previous.safetensors', 'checkpoint.safetensors']) {
      it(`go on from the last one that is whole (before ${file})`, async () => {
        await killedBefore(file);
        assert.equal(await resumedAt(), 40);
        assert.deepEqual(told, []);
      });
    }
  });

  it('of an older version, without a hash, are taken as they are', async () => {
    await savedAt(20);
    writeFileSync(at('checkpoint.json'), JSON.stringify(RECORD));
    assert.equal(await resumedAt(), 20);
  });

  it('are gone when the run is finished', async () => {
    await (await savedAt(20, 40)).remove();
    assert.deepEqual(readdirSync(directory), []);
    assert.ok(existsSync(directory));
  });
});
