import assert from 'node:assert/strict';
import {
  MANIFEST_SCHEMA,
  checkpointDataKey,
  checkpointRef,
  epochOfKey,
  manifestKey,
  parseManifest,
  previewKey,
  serializeManifest,
} from '../../../common/checkpoint-manifest.ts';
import type { CheckpointManifest } from '../../../common/checkpoint-manifest.ts';

const JOB = { styleId: 42, taskId: '0b5e' };
const KEY = manifestKey(JOB, 2);

const manifest: CheckpointManifest = {
  schema: MANIFEST_SCHEMA,
  ...JOB,
  epoch: 2,
  step: 24,
  fingerprint: 'f',
  objects: [{ key: checkpointDataKey(JOB, 2, 'u'), sizeBytes: 3, sha256: 'a'.repeat(64) }],
  epochLosses: [0.5, 0.25],
  holdId: 'hold',
  versions: { brushwork: '0.1.0', torch: '2.11.0' },
  createdAt: '2026-01-01T00:00:00.000Z',
};

const bytesOf = (value: unknown) => Buffer.from(JSON.stringify(value));

describe('checkpoint manifest', () => {
  it('is read back as it was written', () => {
    assert.deepEqual(parseManifest(bytesOf(manifest), KEY, JOB), manifest);
    assert.deepEqual(checkpointRef(manifest), { manifestKey: KEY, epoch: 2, step: 24, fingerprint: 'f' });
  });

  it('notices a change of any figure by its digest, and reads manifests of before, which have none', () => {
    const text = serializeManifest(manifest);
    assert.deepEqual(parseManifest(Buffer.from(text), KEY, JOB), manifest);
    for (const [from, to] of [
      ['"step":24', '"step":25'],
      ['0.25', '0.26'],
      ['"holdId":"hold"', '"holdId":"hole"'],
    ] as const) {
      assert.throws(() => parseManifest(Buffer.from(text.replace(from, to)), KEY, JOB), { code: 'CHECKSUM_MISMATCH' });
    }
  });

  it('may name a contact sheet', () => {
    const preview = { key: previewKey(JOB, 2, 'u'), sizeBytes: 3, sha256: 'b'.repeat(64) };
    const withSheet = { ...manifest, preview };
    assert.equal(preview.key, 'checkpoints/style_42/0b5e/previews/epoch-000002-u.png');
    assert.equal(checkpointRef(parseManifest(bytesOf(withSheet), KEY, JOB)).previewKey, preview.key);
    for (const bad of [{ ...preview, key: 'models/x.png' }, { ...preview, sizeBytes: -1 }, 'sheet.png']) {
      assert.throws(() => parseManifest(bytesOf({ ...manifest, preview: bad }), KEY, JOB), {
        code: 'CHECKSUM_MISMATCH',
      });
    }
  });

  it('may hold what was measured on held-out pictures', () => {
    const validated = {
      ...manifest,
      validationLosses: [
        { epoch: 0, loss: 0.6 },
        { epoch: 2, loss: 0.3 },
      ],
    };
    assert.deepEqual(parseManifest(bytesOf(validated), KEY, JOB), validated);
  });

  it('has keys that sort like epochs and tell them', () => {
    const keys = [1000, 10, 2].map((epoch) => manifestKey(JOB, epoch));
    assert.deepEqual([...keys].sort().map(epochOfKey), [2, 10, 1000]);
    assert.equal(epochOfKey(checkpointDataKey(JOB, 30, 'x')), 30);
    assert.equal(epochOfKey('models/style_42/lora_weights.safetensors'), null);
  });

  it('lies below the prefix of its job', () => {
    assert.equal(KEY, 'checkpoints/style_42/0b5e/manifests/epoch-000002.json');
    assert.equal(checkpointDataKey(JOB, 2, 'u'), 'checkpoints/style_42/0b5e/data/epoch-000002-u.safetensors');
  });

  it('of another format is no damage, so that nothing is trained again in silence', () => {
    for (const schema of [0, 2]) {
      assert.throws(() => parseManifest(bytesOf({ ...manifest, schema, epoch: 'two' }), KEY, JOB), {
        code: 'CHECKPOINT_INCOMPATIBLE',
        message: new RegExp(`has format ${schema}`),
      });
    }
  });

  for (const [defect, bytes] of [
    ['no JSON', Buffer.from('{"schema":1')],
    ['no UTF-8', Buffer.from([0xff, 0xfe])],
    ['no object', bytesOf([manifest])],
    ['no schema', bytesOf({ ...manifest, schema: undefined })],
    ['another schema of another task', bytesOf({ ...manifest, schema: 2, taskId: 'x' })],
    ['another task', bytesOf({ ...manifest, taskId: 'x' })],
    ['another style', bytesOf({ ...manifest, styleId: 41 })],
    ['another epoch than its key', bytesOf({ ...manifest, epoch: 3, epochLosses: [1, 1, 1] })],
    ['no data', bytesOf({ ...manifest, objects: [] })],
    ['data of another job', bytesOf({ ...manifest, objects: [{ ...manifest.objects[0], key: 'elsewhere/x' }] })],
    ['a short hash', bytesOf({ ...manifest, objects: [{ ...manifest.objects[0], sha256: 'ab' }] })],
    ['a negative size', bytesOf({ ...manifest, objects: [{ ...manifest.objects[0], sizeBytes: -1 }] })],
    ['a missing loss', bytesOf({ ...manifest, epochLosses: [1] })],
    ['a loss that is no number', bytesOf({ ...manifest, epochLosses: [1, null] })],
    ['a measurement of no epoch', bytesOf({ ...manifest, validationLosses: [{ loss: 1 }] })],
    ['a measurement of a later epoch', bytesOf({ ...manifest, validationLosses: [{ epoch: 3, loss: 1 }] })],
    ['a measurement that is no number', bytesOf({ ...manifest, validationLosses: [{ epoch: 1, loss: null }] })],
    ['measurements that are no list', bytesOf({ ...manifest, validationLosses: { epoch: 1, loss: 1 } })],
    ['no versions', bytesOf({ ...manifest, versions: undefined })],
  ] as const) {
    it(`is refused with ${defect}`, () => {
      assert.throws(() => parseManifest(bytes, KEY, JOB), { code: 'CHECKSUM_MISMATCH' });
    });
  }
});
