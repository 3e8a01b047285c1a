import assert from 'node:assert/strict';
import { runFingerprint } from '../../../activities/fingerprint.ts';
import { trainingConfigFor } from '../../../common/training-config.ts';

const NOTHING = { epochs: null, learningRate: null, batchSize: null };
const config = trainingConfigFor(NOTHING, {}, { imageCount: 12, mixedPrecisionDefault: 'no' });
const pictures = [
  { name: 'a.png', sha256: 'aa', captionSha256: 'ca' },
  { name: 'b.png', sha256: 'bb', captionSha256: 'cb' },
];
const content = { config, baseModelFingerprint: 'base', pictures };

describe('runFingerprint', () => {
  it('does not depend on the order of the pictures', () => {
    assert.equal(runFingerprint({ ...content, pictures: pictures.toReversed() }), runFingerprint(content));
  });

  it('changes with everything that decides what the weights become', () => {
    const others = [
      { ...content, config: { ...config, rank: 8 } },
      { ...content, config: { ...config, mixedPrecision: 'bf16' as const } },
      { ...content, baseModelFingerprint: 'other' },
      { ...content, pictures: pictures.slice(1) },
      { ...content, pictures: pictures.map((picture) => ({ ...picture, captionSha256: 'other' })) },
    ];
    assert.equal(new Set([content, ...others].map(runFingerprint)).size, others.length + 1);
  });

  it('does not change with what saves memory only', () => {
    const frugal = { ...content, config: { ...config, gradientCheckpointing: true } };
    assert.equal(runFingerprint(frugal), runFingerprint(content));
  });

  it('stays what it was: checkpoints of jobs under way must remain usable', () => {
    assert.equal(runFingerprint(content), 'c3e4f67971f77d1dca029a0e8c91270ddbae1f38f1857fa4a26f8bedd1a43916');
  });
});
