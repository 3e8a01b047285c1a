import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import sharp from 'sharp';
import type { TrainingConfig } from '../../common/types.ts';
import { stepsPerEpoch } from '../../native/trainer/aspect-buckets.ts';
import { inspectDirectory, trainedSizes } from '../../native/trainer/data-report.ts';
import { holdOut } from '../../native/trainer/held-out-pictures.ts';
import { LOCAL_PICTURE_LIMITS } from '../../native/trainer/picture.ts';
import { NEVER, NOTHING, trainerSceneForEachTest } from './support/trainer.ts';
import type { TrainerScene } from './support/trainer.ts';

const EPOCHS = 2;

describe('data of a training', function () {
  this.timeout(120_000);
  let scene: TrainerScene;
  let plain: Buffer[] | null = null;

  trainerSceneForEachTest((made) => (scene = made));

  /** Weights of a short training. */
  async function weightsOf(
    name: string,
    changes: Partial<TrainingConfig> = {},
    directory = 'images',
  ): Promise<Buffer[]> {
    await scene.trainer.prepare(scene.jobOf(changes, { imageDirectory: scene.inside(directory) }), null, NEVER);
    await scene.trainer.train(EPOCHS, NOTHING, NEVER);
    return scene.weightsIn(name);
  }

  const plainWeights = async () => (plain ??= await weightsOf('plain'));

  /** Copies the three pictures into a directory; `copyName` says under which name for each. */
  function copyPictures(directory: string, names: (index: number) => string[]): void {
    mkdirSync(scene.inside(directory), { recursive: true });
    for (let index = 0; index < 3; index++) {
      for (const name of names(index)) {
        copyFileSync(scene.inside('images', `${index}.png`), scene.inside(directory, `${name}.png`));
        if (index === 1) copyFileSync(scene.inside('images/1.txt'), scene.inside(directory, `${name}.txt`));
      }
    }
  }

  it('repeats train as copies of each picture beside it would', async () => {
    copyPictures('copies', (index) => [`${index}`, `${index}-again`]);
    const copies = await weightsOf('of-copies', {}, 'copies');
    const { microStepsRun } = scene.trainer.position('job-1') ?? assert.fail();
    assert.equal(microStepsRun, EPOCHS * 6);
    assert.deepEqual(await weightsOf('of-repeats', { repeats: 2 }), copies);
    assert.equal(scene.trainer.position('job-1')?.microStepsRun, EPOCHS * 6);
    assert.notDeepEqual(copies, await plainWeights());
    assert.deepEqual(await weightsOf('of-one', { repeats: 1 }), await plainWeights());
  });

  it('a trigger word trains as if it stood in the captions', async () => {
    copyPictures('triggered', (index) => [`${index}`]);
    for (const [name, text] of [
      ['0', 'inkwash, a picture of stripes'],
      ['1', 'inkwash, sunset over hills'],
      ['2', 'inkwash, a picture of stripes'],
    ] as const) {
      writeFileSync(scene.inside('triggered', `${name}.txt`), text);
    }
    const written = await weightsOf('written', {}, 'triggered');
    assert.deepEqual(await weightsOf('by-config', { triggerWord: 'inkwash' }), written);
    assert.notDeepEqual(written, await plainWeights());
  });

  describe('in aspect buckets', () => {
    // At this resolution there are three buckets: a square, one twice as wide as high, and one on its side.
    const IN_BUCKETS = { resizeMode: 'bucket', resolutionPx: 96, batchSize: 2, gradientAccumulation: 2 } as const;
    const SHAPES = [
      [80, 70],
      [130, 60],
      [60, 140],
      [75, 75],
      [120, 60],
      [200, 90],
    ] as const;

    async function putPictures(directory: string, shapes: readonly (readonly [number, number])[]): Promise<void> {
      mkdirSync(scene.inside(directory), { recursive: true });
      for (const [index, [width, height]] of shapes.entries()) {
        const pixels = Buffer.from(Array.from({ length: width * height * 3 }, (_, i) => (i * (index + 2)) % 256));
        const image = sharp(pixels, { raw: { width, height, channels: 3 } });
        await image.png().toFile(scene.inside(directory, `${index}.png`));
      }
    }

    it('takes the steps that the report counts, and names the sizes in the kohya file', async () => {
      await putPictures('shapes', SHAPES);
      const { pictures, doubts } = await inspectDirectory(scene.inside('shapes'), {
        ...IN_BUCKETS,
        fallbackCaption: '',
        triggerWord: null,
        limits: LOCAL_PICTURE_LIMITS,
      });
      const steps = stepsPerEpoch(trainedSizes({ pictures, doubts }, scene.jobOf().config), {
        repeats: 3,
        batchSize: 2,
      });
      assert.equal(steps, 3 + 5 + 2);
      const [kohya = assert.fail()] = await weightsOf('shapes-kohya', { ...IN_BUCKETS, repeats: 3 }, 'shapes');
      assert.equal(scene.trainer.position('job-1')?.microStepsRun, EPOCHS * steps);
      const length = Number(kohya.readBigUInt64LE());
      const header = JSON.parse(kohya.toString('utf8', 8, 8 + length)) as { __metadata__: Record<string, string> };
      assert.equal(header.__metadata__['modelspec.resolution'], '96x96');
      assert.deepEqual(JSON.parse(header.__metadata__['ss_bucket_info'] ?? ''), {
        buckets: {
          0: { resolution: [64, 64], count: 6 },
          1: { resolution: [64, 128], count: 3 },
          2: { resolution: [128, 64], count: 9 },
        },
      });
    });

    it('goes on from the middle of an epoch as if nothing had happened', async () => {
      await putPictures('shapes', SHAPES);
      const job = scene.jobOf(IN_BUCKETS, { imageDirectory: scene.inside('shapes') });
      const expected = await weightsOf('shapes-whole', IN_BUCKETS, 'shapes');
      const stop = new AbortController();
      await scene.trainer.prepare(job, null, NEVER);
      const halfway = await scene.trainer.train(EPOCHS, ({ step }) => step === 2 && stop.abort(), stop.signal);
      assert.ok(halfway.stopped && halfway.position.epochsRun < EPOCHS);
      await scene.trainer.saveCheckpoint(scene.inside('halfway.safetensors'));
      await scene.trainer.prepare(job, scene.inside('halfway.safetensors'), NEVER);
      await scene.trainer.train(EPOCHS, NOTHING, NEVER);
      assert.deepEqual(await scene.weightsIn('shapes-resumed'), expected);
    });

    it('equals a training on squares where all pictures are squares', async () => {
      await putPictures('squares', [
        [80, 80],
        [70, 70],
        [300, 300],
      ]);
      const bucket = await weightsOf('squares-bucket', { resizeMode: 'bucket' }, 'squares');
      assert.deepEqual(await weightsOf('squares-crop', { resizeMode: 'crop' }, 'squares'), bucket);
    });
  });

  it('held-out pictures leave the others to train as if they were alone, with measurements in between', async () => {
    const { trainer } = scene;
    const { config } = scene.jobOf({ validationPictures: 1, repeats: 2 });
    const { kept } = holdOut(
      ['0', '1', '2'].map((name) => ({ name })),
      config,
    );
    copyPictures('kept', (index) => (kept.some(({ name }) => name === `${index}`) ? [`${index}`] : []));
    const alone = await weightsOf('alone', { repeats: 2 }, 'kept');
    assert.equal(trainer.position('job-1')?.microStepsRun, EPOCHS * 4);

    await trainer.prepare(scene.jobOf({ validationPictures: 1, repeats: 2 }), null, NEVER);
    const losses: (number | null)[] = [];
    for (let epoch = 0; epoch <= EPOCHS; epoch++) {
      await trainer.train(epoch, NOTHING, NEVER);
      losses.push(await trainer.validate(NEVER), await trainer.validate(NEVER));
    }
    assert.deepEqual(await scene.weightsIn('with-others'), alone);
    const [base, baseAgain, first, firstAgain, last] = losses;
    assert.ok(base === baseAgain && first === firstAgain && base !== first && first !== last);

    const file = scene.inside('validated.safetensors');
    await trainer.saveCheckpoint(file);
    await trainer.kill();
    await trainer.prepare(scene.jobOf({ validationPictures: 1, repeats: 2 }), file, NEVER);
    assert.equal(await trainer.validate(NEVER), last, 'the same after a resume in another process');
  });

  it('stretched pictures train to other weights than cropped ones', async () => {
    assert.notDeepEqual(await weightsOf('stretched', { resizeMode: 'stretch' }), await plainWeights());
    assert.deepEqual(await weightsOf('cropped', { resizeMode: 'crop' }), await plainWeights());
  });
});
