import assert from 'node:assert/strict';
import type { TextSizes, UnetSizes, VaeSizes } from '../../../../worker/single-file-model/configs.ts';
import { inferSizes } from '../../../../worker/single-file-model/infer-sizes.ts';
import type { WeightKey } from '../../../../worker/single-file-model/key-list.ts';
import { textKeys } from '../../../../worker/single-file-model/text-keys.ts';
import { unetKeys } from '../../../../worker/single-file-model/unet-keys.ts';
import { vaeKeys } from '../../../../worker/single-file-model/vae-keys.ts';
import { goldenKeys, goldenModels, singleFileShape } from '../../../support/single-file.ts';
import type { GoldenModel, Part } from '../../../support/single-file.ts';

const models = goldenModels();

function ours({ sizes }: GoldenModel, part: Part): WeightKey[] {
  switch (part) {
    case 'unet':
      return unetKeys(sizes.unet as unknown as UnetSizes);
    case 'vae':
      return vaeKeys(sizes.vae as unknown as VaeSizes);
    case 'text_encoder':
      return textKeys(sizes.text_encoder as unknown as TextSizes);
  }
}

/** What weights show of a configuration. */
function without(config: Record<string, unknown>, ...hidden: string[]): Record<string, unknown> {
  return Object.fromEntries(Object.entries(config).filter(([key]) => !hidden.includes(key)));
}

describe('keys of a single file', () => {
  for (const [name, model] of Object.entries(models)) {
    for (const part of ['unet', 'vae', 'text_encoder'] as const) {
      it(`equal those of diffusers' converter, with names and shapes: ${part} of ${name}`, () => {
        const keys = ours(model, part);
        const expected = goldenKeys(model, part);
        assert.ok(expected.length > 30);
        assert.equal(keys.length, expected.length);
        assert.deepEqual(
          Object.fromEntries(keys.map(({ ldm, diffusers, shape }) => [ldm, [diffusers, shape]])),
          Object.fromEntries(expected.map(([ldm, diffusers, shape]) => [ldm, [diffusers, shape]])),
        );
        assert.equal(new Set(keys.map(({ diffusers }) => diffusers)).size, keys.length);
      });
    }

    it(`show the sizes that they come from: ${name}`, () => {
      const tensors = new Map(
        (['unet', 'vae', 'text_encoder'] as const).flatMap((part) =>
          goldenKeys(model, part).map(([ldm, , shape]) => [
            ldm,
            { dtype: 'F32', shape: singleFileShape(ldm, shape), beginBytes: 0, endBytes: 0 },
          ]),
        ),
      );
      const { unet, vae, text } = inferSizes({ tensors, metadata: new Map() });
      const { sizes } = model;
      assert.deepEqual(unet, without(sizes.unet, 'attention_head_dim', 'norm_num_groups'));
      assert.deepEqual(vae, without(sizes.vae, 'norm_num_groups'));
      assert.deepEqual(text, without(sizes.text_encoder, 'num_attention_heads'));
    });
  }
});
