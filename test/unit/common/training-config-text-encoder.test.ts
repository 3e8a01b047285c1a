import assert from 'node:assert/strict';
import { trainingConfigFor } from '../../../common/training-config.ts';

const NOTHING = { epochs: null, learningRate: null, batchSize: null };
const CONTEXT = { imageCount: 20, mixedPrecisionDefault: 'no' } as const;

describe('training configuration of the text encoder', () => {
  it('refuses a learning rate of the text encoder beside an optimizer that finds one for all', () => {
    const own = { trainTextEncoder: true, textEncoderLearningRate: 1e-5 } as const;
    const refused = {
      code: 'INVALID_REQUEST',
      message: /text_encoder_learning_rate is 0.00001, but prodigy finds one/,
    };
    assert.throws(() => trainingConfigFor(NOTHING, { ...own, optimizer: 'prodigy' }, CONTEXT), refused);
    const unset = { textEncoderLearningRate: null };
    for (const apart of [{ optimizer: 'lion' }, { optimizer: 'prodigy', ...unset }] as const) {
      trainingConfigFor(NOTHING, { ...own, ...apart }, CONTEXT);
    }
  });

  it('refuses a learning rate of a text encoder that is not trained, and takes it with one that is', () => {
    const rate = { textEncoderLearningRate: 1e-5 };
    const refused = {
      code: 'INVALID_REQUEST',
      message: /text_encoder_learning_rate is 0.00001, but train_text_encoder is false/,
    };
    assert.throws(() => trainingConfigFor(NOTHING, rate, CONTEXT), refused);
    assert.throws(() => trainingConfigFor(NOTHING, { ...rate, trainTextEncoder: false }, CONTEXT), refused);
    assert.equal(
      trainingConfigFor(NOTHING, { ...rate, trainTextEncoder: true }, CONTEXT).textEncoderLearningRate,
      1e-5,
    );
    assert.equal(trainingConfigFor(NOTHING, { textEncoderLearningRate: null }, CONTEXT).textEncoderLearningRate, null);
  });
});
