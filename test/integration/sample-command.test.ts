import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import sharp from 'sharp';
import type { SampleRequest } from '../../common/trainer.ts';
import { NEVER, NOTHING, SIDE_PX, trainerSceneForEachTest } from './support/trainer.ts';
import type { TrainerScene } from './support/trainer.ts';
import { until } from './support/until.ts';

const CLI = path.join(import.meta.dirname, '../../cli/main.ts');

const execute = promisify(execFile);

describe('brushwork sample', function () {
  this.timeout(120_000);
  let scene: TrainerScene;

  trainerSceneForEachTest((made) => (scene = made));

  /** The command line of a quick drawing into the folder `drawn`. */
  const commandLine = (...more: string[]): string[] => [
    ...[CLI, 'sample', '--model', scene.inside('model'), '--output', scene.inside('drawn'), '--prompt', 'sunset'],
    ...['--size', String(SIDE_PX), '--steps', '2', '--guidance', '5', '--threads', '1', ...more],
  ];

  it('draws the same with each weight file as the job that was trained', async () => {
    await scene.trainer.prepare(scene.jobOf({ learningRate: 0.05 }), null, NEVER);
    await scene.trainer.train(2, NOTHING, NEVER);
    await scene.trainer.exportWeights(scene.inside('weights'));
    const request: Omit<SampleRequest, 'lora' | 'file'> = {
      ...{ prompt: 'sunset', negativePrompt: 'rain', seed: 4, sampler: 'ddim', stepCount: 2, guidanceScale: 5 },
      ...{ widthPx: SIDE_PX, heightPx: SIDE_PX },
    };
    await scene.trainer.sample({ ...request, lora: 'job', file: scene.inside('job.png') }, NEVER);
    await scene.trainer.sample({ ...request, lora: 'none', file: scene.inside('base.png') }, NEVER);
    assert.ok(!readFileSync(scene.inside('base.png')).equals(readFileSync(scene.inside('job.png'))));

    const same = ['--negative-prompt', 'rain', '--seed', '4', '--sampler', 'ddim'];
    for (const name of ['lora_weights.safetensors', 'kohya.safetensors', 'peft', null]) {
      const lora = name === null ? [] : ['--lora', scene.inside('weights', name)];
      await execute(process.execPath, commandLine(...same, ...lora));
      const drawn = await sharp(scene.inside('drawn/1-seed-4.png')).raw().toBuffer();
      const expected = await sharp(scene.inside(name === null ? 'base.png' : 'job.png'))
        .raw()
        .toBuffer();
      assert.ok(drawn.equals(expected), String(name));
    }
  });

  it('draws several prompts and seeds in any size, and tells a line for each', async () => {
    const { stdout } = await execute(
      process.execPath,
      commandLine('--prompt', 'hills', '--count', '2', '--seed', '7', '--width', '32', '--height', '48'),
    );
    const files = [1, 2, 3, 4].map((number) => scene.inside('drawn', `${number}-seed-${7 + ((number + 1) % 2)}.png`));
    const lines = stdout.trimEnd().split('\n');
    assert.deepEqual(
      lines.map((line) => line.replace(/ \(\d+\.\d s\)$/, '')),
      files.map((file, index) => `${file}: ${index < 2 ? 'sunset' : 'hills'}`),
    );
    const { width, height } = await sharp(files[3]).metadata();
    assert.deepEqual([width, height], [32, 48]);
  });

  it('takes the base model of the environment, and draws into the folder drawn by itself', async () => {
    await scene.trainer.prepare(scene.jobOf(), null, NEVER);
    await scene.trainer.exportWeights(scene.inside('style'));
    rmSync(scene.inside('drawn'), { recursive: true, force: true });
    const { stdout } = await execute(
      process.execPath,
      [
        ...[CLI, 'sample', '--lora', 'style/lora_weights.safetensors', '--prompt', 'sunset'],
        ...['--size', String(SIDE_PX), '--steps', '1', '--threads', '1'],
      ],
      { cwd: scene.inside(), env: { ...process.env, BASE_MODEL: 'model' } },
    );
    assert.match(stdout, /^drawn\/1-seed-0\.png: sunset /);
    assert.ok(existsSync(scene.inside('drawn/1-seed-0.png')));
  });

  it('says in one line what it can not use', async () => {
    writeFileSync(scene.inside('note.safetensors'), 'not a LoRA at all');
    for (const [more, complaint] of [
      [['--lora', scene.inside('note.safetensors')], /^INVALID_REQUEST: .*note\.safetensors: .*\n$/],
      [['--width', '30'], /^INVALID_REQUEST: .* 30 px can't be drawn, but one of 32 px .*multiples of 8 px\.\n$/],
      [
        ['--output', scene.inside('note.safetensors')],
        /^INVALID_REQUEST: .*note\.safetensors is a file\. Name another\.\n$/,
      ],
    ] as const) {
      const failed = execute(process.execPath, commandLine(...more));
      await assert.rejects(
        failed,
        (error: { stderr: string }) => complaint.test(error.stderr) || assert.fail(error.stderr),
      );
    }
  });

  it('stops at the next step when it is told to', async () => {
    rmSync(scene.inside('drawn'), { recursive: true, force: true });
    const child = spawn(process.execPath, commandLine('--count', '10000', '--steps', '900'), { stdio: 'pipe' });
    let stdout = '';
    child.stdout.on('data', (data) => (stdout += String(data)));
    const ended = new Promise((resolve) => child.once('close', resolve));
    await until(() => existsSync(scene.inside('drawn')), 'the output directory');
    child.kill('SIGINT');
    assert.equal(await ended, 130);
    assert.match(stdout, /stopped\n$/);
  });
});
