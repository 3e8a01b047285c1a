import type { TextSizes } from './configs.ts';
import { KeyList } from './key-list.ts';
import type { WeightKey } from './key-list.ts';

/** Prefix of the text encoder in a single file: LDM keeps transformers' own model there. */
export const TEXT_PREFIX = 'cond_stage_model.transformer';

/** A level of transformers' CLIP that some versions of it leave out when they save. */
export const TEXT_LEVEL = 'text_model';

/**
 * All weights of CLIP's text encoder. Single files have transformers' own names
 * (https://github.com/huggingface/transformers/blob/v4.22.0/src/transformers/models/clip/modeling_clip.py), with a prefix.
 *
 * @param sizes - as its configuration names them
 */
export function textKeys(sizes: TextSizes): WeightKey[] {
  const model = new KeyList(TEXT_PREFIX).at(TEXT_LEVEL, TEXT_LEVEL);
  const { hidden_size: width, intermediate_size: inner } = sizes;
  const embeddings = model.at('embeddings', 'embeddings');
  embeddings.matrix('token_embedding', 'token_embedding', [sizes.vocab_size, width]);
  embeddings.matrix('position_embedding', 'position_embedding', [sizes.max_position_embeddings, width]);
  for (let i = 0; i < sizes.num_hidden_layers; i++) {
    const layer = model.at(`encoder.layers.${i}`, `encoder.layers.${i}`);
    for (const name of ['q_proj', 'k_proj', 'v_proj', 'out_proj'].map((projection) => `self_attn.${projection}`)) {
      layer.layer(name, name, [width, width]);
    }
    layer.norm('layer_norm1', 'layer_norm1', width);
    layer.layer('mlp.fc1', 'mlp.fc1', [inner, width]);
    layer.layer('mlp.fc2', 'mlp.fc2', [width, inner]);
    layer.norm('layer_norm2', 'layer_norm2', width);
  }
  model.norm('final_layer_norm', 'final_layer_norm', width);
  return model.keys;
}
