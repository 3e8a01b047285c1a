import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

/** A tensor of a safetensors file. */
export interface Tensor {
  dtype: string;
  shape: number[];
  bytes: Buffer;
}

/** Tensors by name. */
export type Tensors = Record<string, Tensor>;

const GOLDEN = path.join(import.meta.dirname, '../reference/golden/single_file_keys.json');

/** Parts of a model, as `single_file_keys.json` names them. */
export type Part = 'unet' | 'vae' | 'text_encoder';

/** One model of `single_file_keys.json`. */
export interface GoldenModel {
  sizes: Record<Part, Record<string, unknown>>;
  /** For each name in a single file: name and shape in diffusers layout. */
  keys: Record<Part, Record<string, string>>;
}

/** What test/reference/single_file_keys.py wrote. */
export function goldenModels(): Record<'sd15' | 'small' | 'tiny', GoldenModel> {
  return JSON.parse(readFileSync(GOLDEN, 'utf8')) as Record<'sd15' | 'small' | 'tiny', GoldenModel>;
}

/** Names and shapes of a part: `[name in a single file, name in diffusers layout, shape there]`. */
export function goldenKeys(model: GoldenModel, part: Part): [ldm: string, diffusers: string, shape: number[]][] {
  return Object.entries(model.keys[part]).map(([ldm, text]) => {
    const [name = '', sides = ''] = text.split(' ');
    return [ldm, name, sides.split('x').map(Number)];
  });
}

/** The shape that a single file gives to a weight. */
export function singleFileShape(ldm: string, shape: number[]): number[] {
  return ldm.includes('.attn_1.') && shape.length === 2 ? [...shape, 1, 1] : shape;
}

/** A safetensors file, tensors in the order given. */
export function safetensorsBytes(tensors: Tensors, metadata?: Record<string, string>): Buffer {
  const header: Record<string, object> = metadata === undefined ? {} : { __metadata__: metadata };
  let position = 0;
  for (const [name, { dtype, shape, bytes }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [position, position + bytes.length] };
    position += bytes.length;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, ...Object.values(tensors).map(({ bytes }) => bytes)]);
}

/** Writes {@link safetensorsBytes} to a file. */
export function writeSafetensors(file: string, tensors: Tensors, metadata?: Record<string, string>): void {
  writeFileSync(file, safetensorsBytes(tensors, metadata));
}

/** Reads a safetensors file whole. */
export function readSafetensors(file: string): Tensors {
  const content = readFileSync(file);
  const dataStart = 8 + Number(content.readBigUInt64LE(0));
  const header = JSON.parse(content.toString('utf8', 8, dataStart)) as Record<
    string,
    { dtype: string; shape: number[]; data_offsets: [number, number] }
  >;
  return Object.fromEntries(
    Object.entries(header)
      .filter(([name]) => name !== '__metadata__')
      .map(
        ([
          name,
          {
            dtype,
            shape,
            data_offsets: [begin, end],
          },
        ]) => [name, { dtype, shape, bytes: content.subarray(dataStart + begin, dataStart + end) }],
      ),
  );
}

/** Tensors with the names and shapes of a single file; each has bytes of its own. */
export function singleFileTensors(model: GoldenModel, dtype: 'F16' | 'F32' = 'F16'): Tensors {
  const tensors: Tensors = {};
  for (const part of ['unet', 'vae', 'text_encoder'] as const) {
    for (const [ldm, , shape] of goldenKeys(model, part)) {
      const count = shape.reduce((total, side) => total * side, 1);
      const bytes = Buffer.alloc(count * (dtype === 'F16' ? 2 : 4), ldm);
      tensors[ldm] = { dtype, shape: singleFileShape(ldm, shape), bytes };
    }
  }
  return tensors;
}

/** Rewrites a directory in diffusers layout as the tensors of a single file. */
export function toSingleFile(directory: string, model: GoldenModel): Tensors {
  const files = {
    unet: 'unet/diffusion_pytorch_model.safetensors',
    vae: 'vae/diffusion_pytorch_model.safetensors',
    text_encoder: 'text_encoder/model.safetensors',
  } as const;
  const tensors: Tensors = {};
  for (const [part, file] of Object.entries(files) as [Part, string][]) {
    const weights = readSafetensors(path.join(directory, file));
    for (const [ldm, diffusers, shape] of goldenKeys(model, part)) {
      const found = weights[diffusers] ?? weights[diffusers.replace('text_model.', '')];
      if (found === undefined) throw new Error(`${file} lacks ${diffusers}`);
      tensors[ldm] = { ...found, shape: singleFileShape(ldm, shape) };
    }
  }
  return tensors;
}

/** A tiny single-file model `style.safetensors` with what must lie beside it, by path. */
export function tinySingleFile(): Record<string, Buffer> {
  const { tiny } = goldenModels();
  const json = (content: object) => Buffer.from(JSON.stringify(content));
  return {
    'style.safetensors': safetensorsBytes(singleFileTensors(tiny)),
    'text_encoder/config.json': json({ num_attention_heads: 4 }),
    'tokenizer/merges.txt': Buffer.from('#version: 0.2\n'),
    'tokenizer/vocab.json': json({ a: 0 }),
    'unet/config.json': json({ attention_head_dim: 4, norm_num_groups: 8 }),
    'vae/config.json': json({ norm_num_groups: 4 }),
  };
}
