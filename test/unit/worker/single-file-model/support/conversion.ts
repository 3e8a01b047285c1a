import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pino } from 'pino';
import { convertSingleFile } from '../../../../../worker/single-file-model/convert.ts';
import type { ConvertOptions } from '../../../../../worker/single-file-model/convert.ts';
import { writeFiles } from '../../../../support/model-layout.ts';
import { goldenModels, singleFileTensors, tinySingleFile } from '../../../../support/single-file.ts';
import type { Tensor, Tensors } from '../../../../support/single-file.ts';

/** The model whose single file the tests convert. */
export const { tiny: TINY } = goldenModels();

/** Path of the UNet in a single file. */
export const UNET = 'model.diffusion_model';
/** One of its weights. */
export const NORM = `${UNET}.out.0.weight`;

/** A tensor of any type and shape, with bytes that mean nothing. */
export function numbers(dtype: string, ...shape: number[]): Tensor {
  const itemBytes = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, F8_E4M3: 1 }[dtype] ?? 1;
  const sizeBytes = shape.reduce((total, side) => total * side, itemBytes);
  return { dtype, shape, bytes: Buffer.alloc(sizeBytes, dtype) };
}

/** A single file with what lies beside it, and a cache of its own to convert it into. */
export class ConversionScene {
  readonly directory = mkdtempSync(path.join(tmpdir(), 'brushwork-convert-'));
  file = this.at('folder/style.safetensors');
  tensors: Tensors = singleFileTensors(TINY);

  constructor() {
    writeFiles(this.at('folder'), tinySingleFile());
  }

  at(...names: string[]): string {
    return path.join(this.directory, ...names);
  }

  /** Names of what was converted, sorted. */
  models(): string[] {
    return readdirSync(this.at('cache/models')).sort();
  }

  /** Puts a JSON file beside the single file. */
  writeSide(name: string, content: object): void {
    mkdirSync(path.dirname(this.at('folder', name)), { recursive: true });
    writeFileSync(this.at('folder', name), JSON.stringify(content));
  }

  convert(changes: Partial<ConvertOptions> = {}): Promise<string> {
    return convertSingleFile(this.file, 'style', {
      cacheDirectory: this.at('cache'),
      logger: pino({ level: 'silent' }),
      signal: new AbortController().signal,
      ...changes,
    });
  }

  remove(): void {
    rmSync(this.directory, { recursive: true });
  }
}
