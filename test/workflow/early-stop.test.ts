import assert from 'node:assert/strict';
import type { TrainEpochChunkInput } from '../../common/activity-types.ts';
import type { ValidationLoss } from '../../common/types.ts';
import { trainingConfig } from '../support/training-config.ts';
import { resultOf, sceneForEachTest, statusOf } from './support/harness.ts';
import type { Scene } from './support/harness.ts';
import { failure, until } from './support/world.ts';
import type { World } from './support/world.ts';

/** Best after 15 epochs, so that three measurements without a better one are over after 30. */
const lossAt = (epoch: number) => 1 + Math.abs(epoch - 15) / 100;

const MEASURED = [0, 5, 10, 15, 20, 25, 30].map((epoch) => ({ epoch, loss: lossAt(epoch) }));

describe('early stop', function () {
  this.timeout(60_000);
  let scene: Scene;
  let world: World;

  sceneForEachTest((made) => {
    scene = made;
    ({ world } = made);
    world.config = trainingConfig({ epochs: 100, validationPictures: 2, earlyStopPatience: 3 });
    world.validationLossAt = lossAt;
  });

  const chunks = () =>
    world
      .loggedOf('trainEpochChunk')
      .filter((line) => line.endsWith(' done'))
      .map((line) => line.split(' ')[1]);

  /** What the backend heard of how far the job is when its weights were being published. */
  function assertPublishedAfter30(): void {
    assert.ok(world.loggedOf('upload').some((line) => line.includes('epoch-30')));
    const [notice, ...more] = world.finalNotices();
    assert.ok(notice?.kind === 'complete');
    assert.deepEqual([notice.epochs, notice.loss, more.length], [30, 1 / 30, 0]);
    const progress = world.notices.filter((each) => each.kind === 'progress').at(-1);
    assert.ok(progress?.kind === 'progress');
    assert.deepEqual([progress.currentEpoch, progress.totalEpochs], [30, 30], 'that is 100 %');
  }

  it('publishes what there is when the validation has got nowhere for too long', async () => {
    await scene.addPod('a');
    const handle = await scene.start();
    const result = await resultOf(handle);
    assert.deepEqual([result.epochs, result.loss], [30, 1 / 30]);
    assert.deepEqual(chunks(), ['0-10', '10-20', '20-30']);
    assert.deepEqual([...world.manifests.keys()], [10, 20, 30], 'the last state is in the bucket');
    assert.deepEqual(world.manifests.get(20)?.validationLosses, MEASURED.slice(0, 5));
    assertPublishedAfter30();

    const { epoch, totalEpochs, validationLoss, earlyStop } = await statusOf(handle);
    assert.deepEqual([epoch, totalEpochs, validationLoss], [30, 30, lossAt(30)]);
    assert.match(earlyStop ?? '', /not improved on 1\.000, as after epoch 15, in 3 measurements/);
    assert.deepEqual(await handle.query<ValidationLoss[]>('validationCurve'), MEASURED);
    const metadata = await handle.query<{ currentDetails: string }>('__temporal_workflow_metadata');
    assert.ok(metadata.currentDetails.includes('Stopped early'), metadata.currentDetails);
  });

  it('tells each chunk what was measured before, so that the last one is known to be the last', async () => {
    const told: unknown[] = [];
    world.when('trainEpochChunk', (_pod, input) => {
      told.push((input as TrainEpochChunkInput).validationLosses);
      return undefined;
    });
    await scene.addPod('a');
    await resultOf(await scene.start());
    assert.deepEqual(told, [[], MEASURED.slice(0, 3), MEASURED.slice(0, 5)]);
  });

  it('ends at the same epoch on another pod, from what the bucket knows of the curve', async () => {
    world.when('trainEpochChunk', (pod, input) =>
      pod === 'a' && (input as { fromEpoch: number }).fromEpoch === 20 ? world.hang() : undefined,
    );
    const first = await scene.addPod('a');
    const handle = await scene.start();
    await until(() => world.log.includes('checkpoint@a 20 done'), 'second checkpoint');
    first.kill();
    await scene.addPod('b');
    assert.equal((await resultOf(handle)).epochs, 30);
    assert.deepEqual(chunks(), ['0-10', '10-20', '20-30']);
    assert.deepEqual(await handle.query<ValidationLoss[]>('validationCurve'), MEASURED);
    assertPublishedAfter30();
  });

  it('trains no further when the pod is lost while it publishes', async () => {
    world.when('upload', (pod) => {
      if (pod === 'a') throw failure('GPU_FAULT', true);
    });
    await scene.addPod('a');
    const handle = await scene.start();
    await until(
      () => world.log.some((line) => line.startsWith('upload@a') && line.endsWith('failed')),
      'failed upload',
    );
    world.when('upload', () => undefined);
    assert.equal((await resultOf(handle)).epochs, 30);
    assert.deepEqual(chunks(), ['0-10', '10-20', '20-30']);
    assert.equal(world.loggedOf('download').filter((line) => line.endsWith('from 30 done')).length, 1);
    assertPublishedAfter30();
  });
});
