import { open } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import type { PlannedTensor } from './key-matcher.ts';

/** Bytes that are in memory at a time. */
const CHUNK_BYTES = 4 * 2 ** 20;

/** The header's length is a multiple of this, so that tensors begin at even addresses. */
const ALIGNMENT_BYTES = 8;

/** A safetensors file that is to be written. */
export interface WeightFile {
  head: Buffer;
  /** In the order of their bytes. */
  tensors: readonly PlannedTensor[];
  sizeBytes: number;
}

const bytesOf = ({ source }: PlannedTensor) => source.endBytes - source.beginBytes;

/**
 * Lays out a safetensors file: widest types first, so that every tensor begins at a multiple of its type's size, and beyond
 * that in the order in which the source has them.
 *
 * @param tensors - what it is to hold
 */
export function layOut(tensors: readonly PlannedTensor[]): WeightFile {
  const ordered = [...tensors].sort((a, b) => itemBytes(b) - itemBytes(a) || a.source.beginBytes - b.source.beginBytes);
  const header: Record<string, object> = { __metadata__: { format: 'pt' } };
  let position = 0;
  for (const tensor of ordered) {
    const end = position + bytesOf(tensor);
    header[tensor.name] = { dtype: tensor.source.dtype, shape: tensor.shape, data_offsets: [position, end] };
    position = end;
  }
  const text = JSON.stringify(header);
  const json = Buffer.from(text.padEnd(Math.ceil(text.length / ALIGNMENT_BYTES) * ALIGNMENT_BYTES));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const head = Buffer.concat([length, json]);
  return { head, tensors: ordered, sizeBytes: head.length + position };
}

function itemBytes({ shape, source }: PlannedTensor): number {
  return (source.endBytes - source.beginBytes) / shape.reduce((total, side) => total * side, 1);
}

/**
 * Writes a safetensors file by copying ranges of another; whatever its size, a few megabytes are in memory.
 *
 * @param source - where the tensors' bytes are
 * @param layout - what to write
 * @param file - path; it does not exist yet
 * @param options - `onBytes` is called with the length of each piece that was written
 * @throws Error when the source is shorter than it was
 */
export async function writeWeights(
  source: FileHandle,
  layout: WeightFile,
  file: string,
  options: { signal: AbortSignal; onBytes: (lengthBytes: number) => void },
): Promise<void> {
  const target = await open(file, 'wx');
  try {
    await target.writeFile(layout.head);
    const buffer = Buffer.alloc(CHUNK_BYTES);
    for (const { beginBytes, endBytes } of joined(layout.tensors)) {
      for (let position = beginBytes; position < endBytes;) {
        options.signal.throwIfAborted();
        const wanted = Math.min(buffer.length, endBytes - position);
        const { bytesRead } = await source.read(buffer, 0, wanted, position);
        if (bytesRead === 0) throw new Error('the file became shorter while it was read');
        await target.writeFile(buffer.subarray(0, bytesRead));
        options.onBytes(bytesRead);
        position += bytesRead;
      }
    }
    await target.sync();
  } finally {
    await target.close();
  }
}

/** Ranges of the source in the order of the target; neighbours become one. */
function joined(tensors: readonly PlannedTensor[]): { beginBytes: number; endBytes: number }[] {
  const ranges: { beginBytes: number; endBytes: number }[] = [];
  for (const { source } of tensors) {
    const last = ranges.at(-1);
    if (last?.endBytes === source.beginBytes) last.endBytes = source.endBytes;
    else ranges.push({ beginBytes: source.beginBytes, endBytes: source.endBytes });
  }
  return ranges;
}
