import { DOWN_WITH_ATTENTION, UP_WITH_ATTENTION } from './configs.ts';
import type { TextSizes, UnetSizes, VaeSizes } from './configs.ts';
import type { SafetensorsHeader } from './header.ts';
import { TEXT_LEVEL, TEXT_PREFIX } from './text-keys.ts';
import { UNET_PREFIX } from './unet-keys.ts';
import { VAE_PREFIX } from './vae-keys.ts';

/** Shapes of the tensors below a prefix. */
type ShapeOf = (key: string) => readonly number[] | undefined;

/** Sizes of the three models in a file. */
export interface ModelSizes {
  unet: UnetSizes;
  vae: VaeSizes;
  text: TextSizes;
}

/**
 * Reads off the tensors' shapes how big the three models are. A tensor that is absent counts as size 0: it is named when the
 * key map is compared with the file.
 *
 * @param header - of a file that holds all three
 */
export function inferSizes(header: SafetensorsHeader): ModelSizes {
  const below =
    (prefix: string): ShapeOf =>
    (key) =>
      header.tensors.get(`${prefix}.${key}`)?.shape;
  const text = below(TEXT_PREFIX);
  return {
    unet: inferUnet(below(UNET_PREFIX)),
    vae: inferVae(below(VAE_PREFIX)),
    text: inferText((key) => text(`${TEXT_LEVEL}.${key}`) ?? text(key)),
  };
}

/** Layers between two steps down. */
interface Level {
  width: number;
  layers: number;
  hasAttention: boolean;
}

function inferUnet(shapeOf: ShapeOf): UnetSizes {
  let level: Level = { width: 0, layers: 0, hasAttention: false };
  const levels = [level];
  for (let block = 1; ; block++) {
    const resnet = shapeOf(`input_blocks.${block}.0.in_layers.2.weight`);
    if (resnet !== undefined) {
      level.width = resnet[0] ?? 0;
      level.layers++;
      level.hasAttention ||= shapeOf(`input_blocks.${block}.1.proj_in.weight`) !== undefined;
    } else if (shapeOf(`input_blocks.${block}.0.op.weight`) !== undefined) {
      level = { width: 0, layers: 0, hasAttention: false };
      levels.push(level);
    } else break;
  }
  return {
    in_channels: shapeOf('input_blocks.0.0.weight')?.[1] ?? 0,
    out_channels: shapeOf('out.2.weight')?.[0] ?? 0,
    block_out_channels: levels.map(({ width }) => width),
    down_block_types: levels.map(({ hasAttention }) => (hasAttention ? DOWN_WITH_ATTENTION : 'DownBlock2D')),
    up_block_types: levels.map(({ hasAttention }) => (hasAttention ? UP_WITH_ATTENTION : 'UpBlock2D')).reverse(),
    layers_per_block: levels[0]?.layers ?? 0,
    cross_attention_dim: shapeOf('middle_block.1.transformer_blocks.0.attn2.to_k.weight')?.[1] ?? 0,
  };
}

function inferVae(shapeOf: ShapeOf): VaeSizes {
  const widths = inRow((level) => shapeOf(`encoder.down.${level}.block.0.conv1.weight`)).map(([width = 0]) => width);
  return {
    in_channels: shapeOf('encoder.conv_in.weight')?.[1] ?? 0,
    out_channels: shapeOf('decoder.conv_out.weight')?.[0] ?? 0,
    latent_channels: shapeOf('decoder.conv_in.weight')?.[1] ?? 0,
    block_out_channels: widths,
    down_block_types: widths.map(() => 'DownEncoderBlock2D'),
    up_block_types: widths.map(() => 'UpDecoderBlock2D'),
    layers_per_block: inRow((layer) => shapeOf(`encoder.down.0.block.${layer}.conv1.weight`)).length,
  };
}

function inferText(shapeOf: ShapeOf): TextSizes {
  const [vocabularySize = 0, width = 0] = shapeOf('embeddings.token_embedding.weight') ?? [];
  return {
    vocab_size: vocabularySize,
    hidden_size: width,
    intermediate_size: shapeOf('encoder.layers.0.mlp.fc1.weight')?.[0] ?? 0,
    num_hidden_layers: inRow((layer) => shapeOf(`encoder.layers.${layer}.layer_norm1.weight`)).length,
    max_position_embeddings: shapeOf('embeddings.position_embedding.weight')?.[0] ?? 0,
  };
}

/** Shapes at 0, 1, 2 … as long as there is one. */
function inRow(shapeAt: (index: number) => readonly number[] | undefined): (readonly number[])[] {
  const shapes: (readonly number[])[] = [];
  for (let shape = shapeAt(0); shape !== undefined; shape = shapeAt(shapes.length)) shapes.push(shape);
  return shapes;
}
