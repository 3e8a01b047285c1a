import assert from 'node:assert/strict';
import { parseTrainingConfig, trainingConfigFor, trainingConfigJson } from '../../../common/training-config.ts';
import { trainingConfig } from '../../support/training-config.ts';

describe('training configuration of the data', () => {
  it('reads what a file says', () => {
    const json = { resize_mode: 'stretch', repeats: 3, trigger_word: 'ink wash' };
    const values = parseTrainingConfig(json);
    assert.deepEqual(values, { resizeMode: 'stretch', repeats: 3, triggerWord: 'ink wash' });
    const config = trainingConfig(values);
    const { resize_mode, repeats, trigger_word } = trainingConfigJson(config);
    assert.deepEqual({ resize_mode, repeats, trigger_word }, json);
    assert.deepEqual(parseTrainingConfig({ trigger_word: null }), { triggerWord: null });
  });

  const refused: [key: string, value: unknown][] = [
    ['resize_mode', 'buckets'],
    ['resize_mode', null],
    ['repeats', 0],
    ['repeats', 21],
    ['trigger_word', ''],
    ['trigger_word', ' ink'],
    ['trigger_word', 'ink\nwash'],
    ['trigger_word', 'x'.repeat(101)],
    ['trigger_word', 3],
  ];
  for (const [key, value] of refused) {
    it(`refuses ${key}: ${JSON.stringify(value)}`, () => {
      assert.throws(() => parseTrainingConfig({ [key]: value }), new RegExp(`${key} must be .*, but is `));
    });
  }

  it('counts repeats where epochs come from the number of pictures', () => {
    const nothing = { epochs: null, learningRate: null, batchSize: null };
    const context = { imageCount: 10, mixedPrecisionDefault: 'no' } as const;
    assert.equal(trainingConfigFor(nothing, {}, context).epochs, 400);
    assert.equal(trainingConfigFor(nothing, { repeats: 2 }, context).epochs, 200);
    assert.equal(trainingConfigFor(nothing, { repeats: 2, epochs: 7 }, context).epochs, 7);
  });
});
