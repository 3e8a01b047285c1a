import assert from 'node:assert/strict';
import path from 'node:path';
import { lookAtPictures, shortReport } from '../../../cli/look-at-pictures.ts';
import { ImageInvalidError, TooFewImagesError } from '../../../common/errors.ts';

const FIXTURES = path.join(import.meta.dirname, '../../fixtures/pictures');

describe('lookAtPictures', () => {
  it('reports on what the recipe makes of the pictures, and on how long it trains on them', async () => {
    const recipe = { resolutionPx: 256, resizeMode: 'stretch', triggerWord: 'inkwash', repeats: 2 } as const;
    const { report, config } = await lookAtPictures(FIXTURES, recipe, 'a picture');
    assert.equal(report.pictures.length, 12);
    assert.ok(report.pictures.every(({ done }) => done.join() === 'reduced to 256×256'));
    assert.ok(report.pictures.every(({ caption }) => caption?.startsWith('inkwash, ')));
    assert.deepEqual([config.repeats, config.epochs], [2, 170]);
  });

  it('finds a directory without pictures', async () => {
    await assert.rejects(lookAtPictures(import.meta.dirname, {}, 'a picture'), TooFewImagesError);
  });
});

describe('shortReport', () => {
  it('counts the pictures and what is doubtful', async () => {
    const { report } = await lookAtPictures(FIXTURES, { resolutionPx: 256 }, 'a picture');
    assert.equal(shortReport(report), '12 pictures');
    const doubts = ['two share one caption'];
    assert.equal(shortReport({ ...report, doubts }), '12 pictures, something doubtful: brushwork inspect tells why');
    report.pictures[3]?.doubts.push('is of nearly one colour');
    assert.equal(shortReport(report), '12 pictures, 1 of them doubtful: brushwork inspect tells why');
  });

  it('refuses what can not be used, all of it', async () => {
    const { report } = await lookAtPictures(FIXTURES, { resolutionPx: 256 }, 'a picture');
    report.pictures[0]?.faults.push('is broken', 'is small');
    report.pictures[2]?.faults.push('is broken');
    assert.throws(
      () => shortReport(report),
      (error) => {
        assert.ok(error instanceof ImageInvalidError);
        assert.match(
          error.message,
          /^2 of 12 pictures can't be used: astronaut\.jpg is broken; cat\.jpg is broken\. Replace/,
        );
        return true;
      },
    );
  });
});
