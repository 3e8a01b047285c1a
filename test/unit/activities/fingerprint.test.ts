import assert from 'node:assert/strict';
import { runFingerprint } from '../../../activities/fingerprint.ts';
import { TRAINING_CONFIG_KEYS } from '../../../common/training-config-keys.ts';
import type { TrainingConfig } from '../../../common/types.ts';
import { trainingConfig } from '../../support/training-config.ts';

const PICTURES = [
  { name: 'b.png', sha256: '22', captionSha256: '44' },
  { name: 'a.png', sha256: '11', captionSha256: '33' },
];

const fingerprintOf = (changes: Partial<TrainingConfig>): string =>
  runFingerprint({ config: { ...trainingConfig(), ...changes }, baseModelFingerprint: 'model', pictures: PICTURES });

/** Of each key that came later, something else than its default. */
const LATER: Partial<TrainingConfig> = {
  optimizer: 'lion',
  lrScheduler: 'cosine',
  lrWarmupSteps: 10,
  minSnrGamma: 5,
  noiseOffset: 0.05,
  emaDecay: 0.99,
  flip: true,
  captionDropout: 0.1,
  trainTextEncoder: true,
  textEncoderLearningRate: 5e-5,
  resizeMode: 'stretch',
  repeats: 2,
  triggerWord: 'inkwash',
  validationPictures: 2,
  validationEveryEpochs: 3,
  earlyStopPatience: 4,
  earlyStopMinDelta: 0.01,
};

describe('runFingerprint', () => {
  // Printed by version 0.1.0, which knew none of the keys that came later: its checkpoints are still continued.
  it('of a job that uses nothing new is what it was before', () => {
    assert.equal(
      fingerprintOf({ seed: 5, rank: 8, alpha: 16, dropout: 0.05, learningRate: 2e-4, epochs: 30, maxGradNorm: 1 }),
      'ca707393b701de2453740bc12c821e1ff450c3eb439b58b2098b7f31524091ec',
    );
  });

  it('does not depend on the order of the pictures', () => {
    const run = { config: trainingConfig(), baseModelFingerprint: 'model' };
    assert.equal(
      runFingerprint({ ...run, pictures: PICTURES }),
      runFingerprint({ ...run, pictures: PICTURES.toReversed() }),
    );
  });

  it('is tried with every key that came later', () => {
    const later = Object.values(TRAINING_CONFIG_KEYS).filter(({ inFingerprint }) => inFingerprint === 'unless-default');
    assert.deepEqual(Object.keys(LATER).sort(), later.map(({ field }) => field).sort());
  });

  it('does not change with what saves memory only', () => {
    assert.equal(fingerprintOf({ gradientCheckpointing: true }), fingerprintOf({}));
  });

  it('changes with everything that decides what the weights become', () => {
    const run = { config: trainingConfig(), baseModelFingerprint: 'model', pictures: PICTURES };
    const others = [
      { ...run, config: trainingConfig({ rank: 8 }) },
      { ...run, config: trainingConfig({ mixedPrecision: 'bf16' }) },
      { ...run, baseModelFingerprint: 'other' },
      { ...run, pictures: PICTURES.slice(1) },
      { ...run, pictures: PICTURES.map((picture) => ({ ...picture, captionSha256: 'other' })) },
    ];
    assert.equal(new Set([run, ...others].map(runFingerprint)).size, others.length + 1);
  });

  for (const [field, value] of Object.entries(LATER)) {
    it(`differs with ${field}`, () => {
      // The learning rate goes with the optimizer; here it must not be what makes the difference.
      assert.notEqual(fingerprintOf({ learningRate: 1e-4, [field]: value }), fingerprintOf({ learningRate: 1e-4 }));
    });
  }
});
