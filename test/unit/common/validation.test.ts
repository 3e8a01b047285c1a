import assert from 'node:assert/strict';
import { TooFewImagesError } from '../../../common/errors.ts';
import { parseTrainingConfig, picturesPerEpoch, trainingConfigFor } from '../../../common/training-config.ts';
import type { TrainingConfig, ValidationLoss } from '../../../common/types.ts';
import { earlyStopReason, isValidationDue, nextValidation } from '../../../common/validation.ts';

const NOTHING = { epochs: null, learningRate: null, batchSize: null };

function configOf(given: Partial<TrainingConfig>, imageCount = 12): TrainingConfig {
  return trainingConfigFor(NOTHING, given, { imageCount, mixedPrecisionDefault: 'no' });
}

/** Measurements after 0, 5, 10, … epochs. */
function measured(...losses: number[]): ValidationLoss[] {
  return losses.map((loss, i) => ({ epoch: 5 * i, loss }));
}

/** Losses as a training gives them: falling, then up and down. Drawn by a fixed rule, so that a failure can be repeated. */
function randomLosses(count: number, seed: number): ValidationLoss[] {
  let state = seed;
  const draw = () => {
    state = (state * 1_103_515_245 + 12_345) % 2 ** 31;
    return state / 2 ** 31;
  };
  return measured(...Array.from({ length: count }, (_, i) => 1 / (1 + i / 4) + 0.2 * draw()));
}

describe('training configuration of the validation', () => {
  it('is off unless it is asked for', () => {
    const { validationPictures, validationEveryEpochs, earlyStopPatience, earlyStopMinDelta } = configOf({});
    assert.deepEqual(
      [validationPictures, validationEveryEpochs, earlyStopPatience, earlyStopMinDelta],
      [0, 5, null, 0],
    );
  });

  const refused: [key: string, value: unknown][] = [
    ['validation_pictures', -1],
    ['validation_pictures', 1.5],
    ['validation_pictures', null],
    ['validation_every_epochs', 0],
    ['validation_every_epochs', 1001],
    ['early_stop_patience', 0],
    ['early_stop_patience', 'off'],
    ['early_stop_min_delta', -0.1],
    ['early_stop_min_delta', 0.6],
  ];
  for (const [key, value] of refused) {
    it(`refuses ${key}: ${JSON.stringify(value)}`, () => {
      assert.throws(() => parseTrainingConfig({ [key]: value }), new RegExp(`${key} must be .*, but is `));
    });
  }

  it('leaves at least half of the pictures to train on', () => {
    assert.equal(configOf({ validationPictures: 6 }, 12).validationPictures, 6);
    assert.equal(configOf({ validationPictures: 5 }, 11).validationPictures, 5);
    assert.throws(
      () => configOf({ validationPictures: 6 }, 11),
      (error: Error) =>
        error instanceof TooFewImagesError && /6 of 11 pictures.*set it to 5 or less/.test(error.message),
    );
  });

  it('refuses to stop early by a validation that is off', () => {
    const early = { code: 'INVALID_REQUEST', message: /early_stop_patience is 3, but validation_pictures is 0/ };
    assert.throws(() => configOf({ earlyStopPatience: 3 }), early);
    assert.equal(configOf({ earlyStopPatience: 3, validationPictures: 2 }).earlyStopPatience, 3);
  });

  it('counts the pictures that are left', () => {
    assert.equal(picturesPerEpoch(12, configOf({ validationPictures: 2, repeats: 3 })), 30);
    assert.equal(configOf({ validationPictures: 2 }).epochs, 400, '4000 steps of 10 pictures');
  });
});

describe('isValidationDue and nextValidation', () => {
  it('are before the first epoch, after every so many, and at the end', () => {
    const config = configOf({ validationPictures: 1, validationEveryEpochs: 4, epochs: 10 });
    const due = Array.from({ length: 11 }, (_, epoch) => epoch).filter((epoch) => isValidationDue(epoch, config));
    assert.deepEqual(due, [0, 4, 8, 10]);
    const chain = [0];
    while (chain.at(-1) !== Infinity) chain.push(nextValidation(chain.at(-1) ?? 0, config));
    assert.deepEqual(chain, [0, 4, 8, 10, Infinity]);
    assert.equal(nextValidation(5, config), 8);
  });

  it('are never without held-out pictures', () => {
    const config = configOf({ epochs: 10 });
    assert.ok(![0, 5, 10].some((epoch) => isValidationDue(epoch, config)));
    assert.equal(nextValidation(0, config), Infinity);
  });
});

describe('earlyStopReason', () => {
  const PATIENCE_3 = { earlyStopPatience: 3, earlyStopMinDelta: 0 };

  it('goes on while there is something better now and then', () => {
    assert.equal(earlyStopReason(measured(1, 0.9, 0.91, 0.92, 0.8, 0.81, 0.82), PATIENCE_3), null);
  });

  it('ends after so many measurements without a better one, and says what was best', () => {
    const reason = earlyStopReason(measured(1, 0.8, 0.81, 0.9, 0.8), PATIENCE_3);
    assert.equal(reason, 'The validation loss has not improved on 0.8000, as after epoch 5, in 3 measurements.');
  });

  it('says what would have counted as better', () => {
    const reason = earlyStopReason(measured(1, 0.8, 0.7), { earlyStopPatience: 2, earlyStopMinDelta: 0.5 });
    assert.equal(
      reason,
      'The validation loss has not improved by more than 50 % on 1.000, as after epoch 0, in 2 measurements.',
    );
  });

  it('ends where training never beats the base model', () => {
    assert.notEqual(earlyStopReason(measured(0.5, 0.6, 0.7, 0.8), PATIENCE_3), null);
  });

  it('does not take a small step down for better where more is wanted', () => {
    const losses = measured(1, 0.999, 0.998, 0.997);
    assert.equal(earlyStopReason(losses, PATIENCE_3), null);
    assert.notEqual(earlyStopReason(losses, { earlyStopPatience: 3, earlyStopMinDelta: 0.01 }), null);
    // Measured against the best, so that many small steps count together in the end.
    const slowly = measured(1, 0.995, 0.99, 0.985);
    assert.equal(earlyStopReason(slowly, { earlyStopPatience: 3, earlyStopMinDelta: 0.01 }), null);
  });

  it('is off with null, in what an older version froze, and before anything was measured', () => {
    const losses = measured(1, 2, 3, 4, 5, 6);
    assert.equal(earlyStopReason(losses, { earlyStopPatience: null, earlyStopMinDelta: 0 }), null);
    assert.equal(earlyStopReason(losses, {}), null);
    assert.equal(earlyStopReason([], PATIENCE_3), null);
  });

  it('never ends before patience is over, never with a best one among the last, and waits longer with more patience', () => {
    for (let seed = 1; seed <= 200; seed++) {
      const losses = randomLosses(30, seed);
      for (let count = 0; count <= losses.length; count++) {
        const soFar = losses.slice(0, count);
        const least = Math.min(...soFar.map(({ loss }) => loss));
        const sinceBest = count - 1 - soFar.findIndex(({ loss }) => loss === least);
        for (let earlyStopPatience = 1; earlyStopPatience < 6; earlyStopPatience++) {
          const ends = earlyStopReason(soFar, { earlyStopPatience, earlyStopMinDelta: 0 }) !== null;
          assert.equal(ends, count > 0 && sinceBest >= earlyStopPatience, `seed ${seed}, ${count} measurements`);
        }
      }
    }
  });

  it('does not mind the scale of the losses', () => {
    for (let seed = 1; seed <= 50; seed++) {
      const losses = randomLosses(12, seed);
      const scaled = losses.map(({ epoch, loss }) => ({ epoch, loss: loss * 8 }));
      const config = { earlyStopPatience: 3, earlyStopMinDelta: 0.05 };
      assert.equal(earlyStopReason(losses, config) === null, earlyStopReason(scaled, config) === null);
    }
  });
});
