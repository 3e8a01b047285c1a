import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  CheckpointIncompatibleError,
  GpuFaultError,
  ImageInvalidError,
  ModelLoadFailedError,
  TooFewImagesError,
} from '../../common/errors.ts';
import { NEVER, NOTHING, trainerSceneForEachTest } from './support/trainer.ts';
import type { TrainerScene } from './support/trainer.ts';
import { until } from './support/until.ts';

const ORPHAN_SCRIPT = path.join(import.meta.dirname, 'support/orphan-trainer.ts');

function isAlive(pid: number): boolean {
  // A child that nobody has collected yet is dead all the same.
  return existsSync(`/proc/${pid}`) && !/^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
}

describe('trainer process, when something goes wrong', function () {
  this.timeout(120_000);
  let scene: TrainerScene;

  trainerSceneForEachTest((made) => (scene = made));

  it('names a segfault, and the next prepare goes on from the checkpoint', async () => {
    await scene.trainer.prepare(scene.jobOf(), null, NEVER);
    await scene.trainer.train(1, NOTHING, NEVER);
    await scene.trainer.saveCheckpoint(scene.inside('before-fault.safetensors'));
    const { pid } = scene.trainer;
    assert.ok(pid !== null);
    const fault = assert.rejects(
      scene.trainer.train(1000, ({ step }) => step === 8 && process.kill(pid, 'SIGSEGV'), NEVER),
      (error) => {
        assert.ok(error instanceof GpuFaultError);
        assert.match(error.message, /ended by SIGSEGV.*goes on from its last checkpoint/);
        return true;
      },
    );
    await fault;
    assert.equal(scene.trainer.position('job-1'), null);
    const position = await scene.trainer.prepare(scene.jobOf(), scene.inside('before-fault.safetensors'), NEVER);
    assert.equal(position.epochsRun, 1);
    assert.equal((await scene.trainer.train(2, NOTHING, NEVER)).position.epochsRun, 2);
  });

  it('calls off a prepare under way', async () => {
    const cancel = new AbortController();
    const reason = new Error('called off');
    const preparing = scene.trainer.prepare(scene.jobOf(), null, cancel.signal);
    setTimeout(() => cancel.abort(reason), 50);
    await assert.rejects(preparing, reason);
    await scene.trainer.prepare(scene.jobOf(), null, NEVER);
  });

  describe('bad input', () => {
    it('names all unusable pictures at once', async () => {
      mkdirSync(scene.inside('bad'));
      const good = readFileSync(scene.inside('images/0.png'));
      writeFileSync(scene.inside('bad/good.png'), good);
      writeFileSync(scene.inside('bad/cut.png'), good.subarray(0, good.length / 2));
      writeFileSync(scene.inside('bad/text.jpg'), 'not a picture');
      await assert.rejects(
        scene.trainer.prepare(scene.jobOf({}, { imageDirectory: scene.inside('bad') }), null, NEVER),
        (error) => {
          assert.ok(error instanceof ImageInvalidError);
          assert.match(error.message, /^2 of 3 pictures can't be used: cut\.png .*; text\.jpg is not a JPEG/);
          return true;
        },
      );
      await scene.trainer.prepare(scene.jobOf(), null, NEVER);
    });

    it('says that a directory holds no picture', async () => {
      mkdirSync(scene.inside('empty'));
      await assert.rejects(
        scene.trainer.prepare(scene.jobOf({}, { imageDirectory: scene.inside('empty') }), null, NEVER),
        TooFewImagesError,
      );
    });

    it('refuses checkpoints that are damaged or of another run', async () => {
      await scene.trainer.prepare(scene.jobOf(), null, NEVER);
      await scene.trainer.train(1, NOTHING, NEVER);
      await scene.trainer.saveCheckpoint(scene.inside('good.safetensors'));
      const good = readFileSync(scene.inside('good.safetensors'));
      const damaged: Record<string, Buffer> = {
        'cut.safetensors': good.subarray(0, good.length - 100),
        'header.safetensors': Buffer.concat([Buffer.from('garbage!'), good.subarray(8)]),
        'empty.safetensors': Buffer.alloc(0),
      };
      for (const [name, bytes] of Object.entries(damaged)) writeFileSync(scene.inside(name), bytes);
      for (const name of [...Object.keys(damaged), 'missing.safetensors']) {
        await assert.rejects(scene.trainer.prepare(scene.jobOf(), scene.inside(name), NEVER), (error) => {
          assert.ok(error instanceof CheckpointIncompatibleError, `${name}: ${String(error)}`);
          // By this `standAt` knows it from one that does not fit.
          assert.ok(error.message.startsWith(`${scene.inside(name)}: `), error.message);
          return true;
        });
        assert.equal(scene.trainer.position('job-1'), null);
      }
      await assert.rejects(
        scene.trainer.prepare(scene.jobOf({ rank: 8 }), scene.inside('good.safetensors'), NEVER),
        /The checkpoint .* does not fit this job: its rank is 4, the job's is 8/,
      );
      assert.equal((await scene.trainer.prepare(scene.jobOf(), scene.inside('good.safetensors'), NEVER)).epochsRun, 1);
    });

    it('says what is wrong with the base model', async () => {
      const missing = scene.jobOf({}, { baseModelDirectory: scene.inside('nowhere') });
      await assert.rejects(scene.trainer.prepare(missing, null, NEVER), ModelLoadFailedError);
      writeFileSync(scene.inside('a-file'), '');
      await scene.trainer.prepare(scene.jobOf(), null, NEVER);
      await assert.rejects(scene.trainer.exportWeights(scene.inside('a-file')), /a-file/);
    });
  });

  describe('when its parent is killed', () => {
    for (const [activity, isStopped] of [
      ['training', false],
      ['training', true],
      ['loading and writing', false],
    ] as const) {
      it(`is gone within a second and writes nothing more, ${isStopped ? 'stopped ' : ''}in the middle of ${activity}`, async () => {
        const output = scene.inside(`orphan-${activity.length}-${isStopped}`);
        mkdirSync(output);
        const checkpointFile = path.join(output, 'state.safetensors');
        const options = [JSON.stringify(scene.jobOf()), checkpointFile, activity];
        const parent = spawn(process.execPath, [ORPHAN_SCRIPT, ...options], { stdio: ['ignore', 'pipe', 'inherit'] });
        const [line] = (await once(createInterface({ input: parent.stdout }), 'line')) as [string];
        const pid = Number(line);
        assert.ok(isAlive(pid));
        if (activity !== 'training')
          await until(
            () => existsSync(checkpointFile),
            () => 'a checkpoint',
          );
        await sleep(300);
        if (isStopped) process.kill(pid, 'SIGSTOP');
        parent.kill('SIGKILL');
        const killedAtMs = performance.now();
        await until(
          () => !isAlive(pid),
          () => `the end of ${pid}`,
          5_000,
        );
        assert.ok(performance.now() - killedAtMs < 1_000, `${performance.now() - killedAtMs} ms`);
        const written = () => readdirSync(output).map((name) => [name, statSync(path.join(output, name)).mtimeMs]);
        const atEnd = written();
        await sleep(500);
        assert.deepEqual(written(), atEnd);
      });
    }
  });
});
