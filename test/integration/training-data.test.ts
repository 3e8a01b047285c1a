import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import type { TrainingConfig } from '../../common/types.ts';
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

  it('stretched pictures train to other weights than cropped ones', async () => {
    assert.notDeepEqual(await weightsOf('stretched', { resizeMode: 'stretch' }), await plainWeights());
    assert.deepEqual(await weightsOf('cropped', { resizeMode: 'crop' }), await plainWeights());
  });
});
