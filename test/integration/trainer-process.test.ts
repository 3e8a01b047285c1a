import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import sharp from 'sharp';
import { CancelledError } from '../../common/errors.ts';
import type { SampleRequest, SheetRequest, StepReport } from '../../common/trainer.ts';
import { NEVER, NOTHING, SIDE_PX, trainerSceneForEachTest } from './support/trainer.ts';
import type { TrainerScene } from './support/trainer.ts';
import { until } from './support/until.ts';

describe('trainer process with the real addon', function () {
  this.timeout(120_000);
  let scene: TrainerScene;

  trainerSceneForEachTest((made) => (scene = made));

  it('tells what it runs on', async () => {
    const { torch, ...rest } = await scene.trainer.runtime();
    assert.match(torch, /^2\.\d+\.\d+/);
    assert.deepEqual(rest, {
      device: 'cpu',
      gpuName: null,
      gpuMemoryMiB: null,
      threadCount: 1,
      mixedPrecisionDefault: 'no',
    });
  });

  it('trains, writes a checkpoint and the weights', async () => {
    const start = await scene.trainer.prepare(scene.jobOf(), null, NEVER);
    assert.deepEqual(start, { epochsRun: 0, microStepsRun: 0, optimizerStepsRun: 0 });
    const reports: StepReport[] = [];
    const { position, stopped } = await scene.trainer.train(2, (report) => reports.push(report), NEVER);
    assert.deepEqual(position, { epochsRun: 2, microStepsRun: 6, optimizerStepsRun: 6 });
    assert.equal(stopped, false);
    assert.deepEqual(
      reports.map(({ step, epoch }) => [step, epoch]),
      [0, 1, 2, 3, 4, 5].map((step) => [step, Math.floor(step / 3)]),
    );
    assert.ok(reports.every(({ loss }) => loss > 0));
    assert.deepEqual(await scene.trainer.saveCheckpoint(scene.inside('a.safetensors')), position);
    await scene.weightsIn('weights-a');
    const config = JSON.parse(readFileSync(scene.inside('weights-a/peft/adapter_config.json'), 'utf8')) as object;
    assert.equal((config as { base_model_name_or_path: string }).base_model_name_or_path, 'tiny');
  });

  it('writes the same bytes after 2 + 2 epochs in two processes as after 4 in one', async () => {
    await scene.trainer.prepare(scene.jobOf(), null, NEVER);
    await scene.trainer.train(4, NOTHING, NEVER);
    await scene.trainer.saveCheckpoint(scene.inside('straight.safetensors'));
    const straight = await scene.weightsIn('straight');
    await scene.trainer.prepare(scene.jobOf(), null, NEVER);
    await scene.trainer.train(2, NOTHING, NEVER);
    await scene.trainer.saveCheckpoint(scene.inside('half.safetensors'));
    await scene.trainer.kill();
    const position = await scene.trainer.prepare(scene.jobOf(), scene.inside('half.safetensors'), NEVER);
    assert.deepEqual(position, { epochsRun: 2, microStepsRun: 6, optimizerStepsRun: 6 });
    await scene.trainer.train(4, NOTHING, NEVER);
    await scene.trainer.saveCheckpoint(scene.inside('resumed.safetensors'));
    assert.deepEqual(await scene.weightsIn('resumed'), straight);
    assert.ok(
      readFileSync(scene.inside('resumed.safetensors')).equals(readFileSync(scene.inside('straight.safetensors'))),
    );
  });

  it('stops within one step, and goes on to the same bytes', async () => {
    await scene.trainer.prepare(scene.jobOf(), null, NEVER);
    const cancel = new AbortController();
    let lastStep = -1;
    let stepAtAbort = -1;
    const { position, stopped } = await scene.trainer.train(
      1000,
      ({ step, durationMs }) => {
        lastStep = step;
        if (step < 4 || stepAtAbort >= 0) return;
        stepAtAbort = step;
        scene.lines.push(`step of ${durationMs} ms`);
        cancel.abort();
      },
      cancel.signal,
    );
    assert.equal(stopped, true);
    assert.equal(position.microStepsRun, lastStep + 1);
    assert.deepEqual(scene.trainer.position('job-1'), position);
    const untilEpoch = Math.ceil(position.microStepsRun / 3);
    await scene.trainer.train(untilEpoch, NOTHING, NEVER);
    const stoppedBetween = await scene.weightsIn('stopped');
    await scene.trainer.prepare(scene.jobOf(), null, NEVER);
    await scene.trainer.train(untilEpoch, NOTHING, NEVER);
    assert.deepEqual(await scene.weightsIn('not-stopped'), stoppedBetween);
  });

  it('answers a stop in the time of a few steps', async () => {
    // Large enough that a step takes longer than the pauses between two reports.
    await scene.trainer.prepare(scene.jobOf({ resolutionPx: 128 }), null, NEVER);
    const cancel = new AbortController();
    let steps = 0;
    let stepMs = 0;
    let abortedAtMs = 0;
    await scene.trainer.train(
      1000,
      ({ durationMs }) => {
        stepMs = Math.max(stepMs, durationMs);
        if (++steps !== 3) return;
        abortedAtMs = performance.now();
        cancel.abort();
      },
      cancel.signal,
    );
    const waitedMs = performance.now() - abortedAtMs;
    assert.ok(waitedMs < 3 * stepMs + 1000, `${waitedMs} ms for steps of ${stepMs} ms`);
    assert.ok(steps <= 3 + 2 + Math.ceil(100 / stepMs), `${steps} steps`);
  });

  it('draws a picture of the training resolution, with and without the style', async () => {
    await scene.trainer.prepare(scene.jobOf({ learningRate: 0.05 }), null, NEVER);
    await scene.trainer.train(2, NOTHING, NEVER);
    const sheet: Omit<SheetRequest, 'file'> = {
      ...{ prompts: ['sunset', '{caption}'], seed: 1, sidePx: null, epoch: 2, directory: scene.inside('pictures') },
      ...{ sampler: 'dpm++', stepCount: 2, guidanceScale: 5 },
    };
    const pictures = () => readdirSync(sheet.directory).map((name) => readFileSync(path.join(sheet.directory, name)));
    await scene.trainer.drawSheet({ ...sheet, file: scene.inside('sheet.png') }, NEVER);
    const { width, height, format } = await sharp(scene.inside('sheet.png')).metadata();
    assert.deepEqual([width, format], [2 * SIDE_PX + 24, 'png']);
    // Two rows with their prompts, below a title.
    assert.ok(height > 2 * SIDE_PX + 3 * 14 && height < 2 * SIDE_PX + 100);
    const first = pictures();
    assert.equal(new Set(first.map(String)).size, 4);
    await scene.trainer.drawSheet({ ...sheet, file: scene.inside('again.png') }, NEVER);
    assert.ok(readFileSync(scene.inside('again.png')).equals(readFileSync(scene.inside('sheet.png'))));
    // One picture alone is the one of the sheet.
    const one: Omit<SampleRequest, 'lora' | 'file'> = {
      ...{ prompt: 'sunset', negativePrompt: '', seed: 1, sampler: 'dpm++', stepCount: 2, guidanceScale: 5 },
      ...{ widthPx: SIDE_PX, heightPx: SIDE_PX },
    };
    await scene.trainer.sample({ ...one, lora: 'job', file: scene.inside('styled.png') }, NEVER);
    assert.ok(readFileSync(scene.inside('styled.png')).equals(first[1] ?? Buffer.alloc(0)));
  });

  it('stops a contact sheet at the next step, and trains on', async () => {
    await scene.trainer.prepare(scene.jobOf(), null, NEVER);
    const look = { sampler: 'ddim', stepCount: 900, guidanceScale: 5, seed: 0, sidePx: null, epoch: 0 } as const;
    const file = scene.inside('stopped-sheet.png');
    const sheet: SheetRequest = { ...look, prompts: ['a hill'], directory: scene.inside('stopped-sheet'), file };
    const called = new AbortController();
    const drawing = scene.trainer.drawSheet(sheet, called.signal);
    await until(() => existsSync(sheet.directory), 'the drawing');
    called.abort(new CancelledError('enough'));
    await assert.rejects(drawing, { code: 'CANCELLED' });
    assert.deepEqual([existsSync(file), readdirSync(sheet.directory)], [false, []]);
    assert.equal((await scene.trainer.train(1, NOTHING, NEVER)).stopped, false);
    await scene.trainer.drawSheet({ ...sheet, stepCount: 1 }, NEVER);
    assert.ok(existsSync(file));
  });

  it('draws the shape that most pictures of a job with aspect buckets have', async () => {
    const images = scene.inside('wide');
    mkdirSync(images, { recursive: true });
    for (const [name, width, height] of [
      ['0.png', 200, 100],
      ['1.png', 200, 100],
      ['2.png', 100, 100],
    ] as const) {
      const create = { width, height, channels: 3 as const, background: '#804020' };
      await sharp({ create }).png().toFile(path.join(images, name));
    }
    await scene.trainer.prepare(
      scene.jobOf({ resizeMode: 'bucket', resolutionPx: 128 }, { imageDirectory: images }),
      null,
      NEVER,
    );
    const look = { sampler: 'ddim', stepCount: 1, guidanceScale: 1, seed: 0, sidePx: null, epoch: 0 } as const;
    const directory = scene.inside('wide-sheet');
    await scene.trainer.drawSheet({ ...look, prompts: ['x'], directory, file: `${directory}.png` }, NEVER);
    const { width, height } = await sharp(path.join(directory, '0-current.png')).metadata();
    assert.deepEqual([width, height], [192, 64]);
  });

  it('fails a sheet that can not be drawn or written, and trains on to the same weights', async () => {
    const look = { sampler: 'ddim', stepCount: 1, guidanceScale: 1, seed: 0, sidePx: null, epoch: 0 } as const;
    const sheet = { ...look, prompts: ['a hill'], directory: scene.inside('failed'), file: scene.inside('failed.png') };
    const weights = async (disturb: () => Promise<void>): Promise<Buffer> => {
      // So fast that every picture overflows after the first step.
      await scene.trainer.prepare(scene.jobOf({ learningRate: 1e25, batchSize: 3, dropout: 0.1 }), null, NEVER);
      await disturb();
      await scene.trainer.train(1, NOTHING, NEVER);
      await disturb();
      const file = scene.inside('disturbed.safetensors');
      await scene.trainer.saveCheckpoint(file);
      return readFileSync(file);
    };
    const undisturbed = await weights(() => Promise.resolve());
    writeFileSync(scene.inside('no-directory'), 'a file');
    const disturbed = await weights(async () => {
      const nowhere = { ...sheet, directory: scene.inside('no-directory') };
      await assert.rejects(scene.trainer.drawSheet(nowhere, NEVER), /EEXIST|ENOTDIR/);
      const unwritable = { ...sheet, file: scene.inside('missing', 'sheet.png') };
      await assert.rejects(scene.trainer.drawSheet(unwritable, NEVER), /ENOENT|not finite/);
      const unfit = { ...sheet, stepCount: 5000 };
      await assert.rejects(scene.trainer.drawSheet(unfit, NEVER), { code: 'INVALID_REQUEST' });
    });
    await assert.rejects(scene.trainer.drawSheet(sheet, NEVER), {
      code: 'INVALID_REQUEST',
      message: /numbers are not finite/,
    });
    assert.ok(disturbed.equals(undisturbed));
    assert.ok(!existsSync(sheet.file));
  });

  it('trains to the same weights whether a sheet was drawn or not', async () => {
    const weights = async (sheets: boolean): Promise<Buffer> => {
      await scene.trainer.prepare(scene.jobOf({ dropout: 0.1, emaDecay: 0.9 }), null, NEVER);
      for (const untilEpoch of [1, 2]) {
        await scene.trainer.train(untilEpoch, NOTHING, NEVER);
        const directory = scene.inside('kept');
        const look = { sampler: 'dpm++', stepCount: 2, guidanceScale: 5, epoch: untilEpoch } as const;
        const request = { ...look, prompts: ['a hill'], seed: 0, sidePx: null, directory, file: `${directory}.png` };
        if (sheets) await scene.trainer.drawSheet(request, NEVER);
      }
      const file = scene.inside(`${sheets}.safetensors`);
      await scene.trainer.saveCheckpoint(file);
      return readFileSync(file);
    };
    assert.ok((await weights(true)).equals(await weights(false)));
  });
});
