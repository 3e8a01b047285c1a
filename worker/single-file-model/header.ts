import { open } from 'node:fs/promises';
import type { FileHandle } from 'node:fs/promises';
import { ModelLoadFailedError } from '../../common/errors.ts';

/** Bytes per number, by the format's names of types. Others (such as float8) are not trained on, so not checked. */
const DTYPE_BYTES: ReadonlyMap<string, number> = new Map([
  ...['F64', 'I64', 'U64'].map((dtype) => [dtype, 8] as const),
  ...['F32', 'I32', 'U32'].map((dtype) => [dtype, 4] as const),
  ...['F16', 'BF16', 'I16', 'U16'].map((dtype) => [dtype, 2] as const),
  ...['I8', 'U8', 'BOOL'].map((dtype) => [dtype, 1] as const),
]);

const LENGTH_BYTES = 8;

/** Enough to tell what else a file may be. */
const START_BYTES = 64;

/** The format's own cap. */
const MAX_HEADER_BYTES = 100_000_000;

/** Where a tensor lies, and what it is. */
export interface TensorEntry {
  dtype: string;
  shape: readonly number[];
  /** From the start of the file. */
  beginBytes: number;
  /** From the start of the file, exclusive. */
  endBytes: number;
}

/** What the head of a safetensors file says. */
export interface SafetensorsHeader {
  /** By name. */
  tensors: ReadonlyMap<string, TensorEntry>;
  /** Strings of `__metadata__`; whatever else lies there is left out. */
  metadata: ReadonlyMap<string, string>;
}

/** A file that may lie on another machine. */
export interface RangeSource {
  sizeBytes: number;
  /** Reads exactly so many bytes. */
  read: (position: number, lengthBytes: number) => Promise<Buffer>;
}

/**
 * Reads the head of a safetensors file and checks it against the file's length; no weights are read.
 *
 * The format: https://github.com/huggingface/safetensors, README.md, "Format".
 *
 * @param file - path
 * @param name - how the model is called in errors
 * @throws ModelLoadFailedError when it is no such file, or not all of it
 */
export async function readHeader(file: string, name: string): Promise<SafetensorsHeader> {
  const handle = await open(file, 'r');
  try {
    const { size } = await handle.stat();
    const read = (position: number, lengthBytes: number) => readExactly(handle, position, lengthBytes);
    return await readHeaderOf({ sizeBytes: size, read }, name);
  } finally {
    await handle.close();
  }
}

/**
 * The same for a file that is read from elsewhere, in two pieces.
 *
 * @param source - where its bytes come from
 * @param name - how the model is called in errors
 * @throws ModelLoadFailedError when it is no such file, or not all of it
 */
export async function readHeaderOf({ sizeBytes, read }: RangeSource, name: string): Promise<SafetensorsHeader> {
  const start = await read(0, Math.min(sizeBytes, START_BYTES));
  refuseOtherFormats(start, name);
  if (sizeBytes < LENGTH_BYTES) throw notSafetensors(name);
  const headerBytes = start.readBigUInt64LE(0);
  if (headerBytes > MAX_HEADER_BYTES) throw notSafetensors(name);
  const dataStart = LENGTH_BYTES + Number(headerBytes);
  if (dataStart > sizeBytes) throw cutOff(name, sizeBytes, `more than ${dataStart}`);
  const text = (await read(LENGTH_BYTES, Number(headerBytes))).toString('utf8');
  return parseHeader(text, { name, dataStart, fileBytes: sizeBytes });
}

async function readExactly(handle: FileHandle, position: number, lengthBytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(lengthBytes);
  let readBytes = 0;
  while (readBytes < lengthBytes) {
    const { bytesRead } = await handle.read(buffer, readBytes, lengthBytes - readBytes, position + readBytes);
    if (bytesRead === 0) throw new Error('the file became shorter while it was read');
    readBytes += bytesRead;
  }
  return buffer;
}

/** What often bears the name of a safetensors file without being one. */
function refuseOtherFormats(start: Buffer, name: string): void {
  // A zip archive, as torch.save writes it, or a bare pickle of protocol 2 and later.
  if (
    start.toString('latin1', 0, 4) === 'PK\x03\x04' ||
    (start[0] === 0x80 && start[1] !== undefined && start[1] <= 5 && start[2] === 0x8a)
  ) {
    throw new ModelLoadFailedError(`The base model ${name} is a PyTorch pickle under another name: ${PICKLE_REMEDY}`);
  }
  if (start.toString('latin1').startsWith('version https://git-lfs')) {
    throw new ModelLoadFailedError(
      `The base model ${name} is a pointer of Git LFS, not the file that it points to: fetch that with git lfs pull.`,
    );
  }
  if (/^\s*<(!doctype|html)/i.test(start.toString('latin1'))) {
    throw new ModelLoadFailedError(
      `The base model ${name} is a web page: the download needs a login or another address, get the file again.`,
    );
  }
}

/** Why pickles are refused, and what to do about one. */
export const PICKLE_REMEDY =
  'loading one may run any code that its maker put in, so none is read. Take a .safetensors version, or convert it: safetensors.torch.save_file of what torch.load(file, weights_only=True) returns (its "state_dict").';

function parseHeader(text: string, file: { name: string; dataStart: number; fileBytes: number }): SafetensorsHeader {
  let json: unknown = null;
  try {
    json = JSON.parse(text);
  } catch {
    throw notSafetensors(file.name);
  }
  if (!isObject(json)) throw notSafetensors(file.name);
  const tensors = new Map<string, TensorEntry>();
  const metadata = new Map<string, string>();
  for (const [key, value] of Object.entries(json)) {
    if (key !== '__metadata__') tensors.set(key, readEntry(key, value, file));
    else if (isObject(value)) {
      for (const [field, content] of Object.entries(value)) {
        if (typeof content === 'string') metadata.set(field, content);
      }
    }
  }
  const neededBytes = [...tensors.values()].reduce((most, { endBytes }) => Math.max(most, endBytes), 0);
  if (neededBytes > file.fileBytes) throw cutOff(file.name, file.fileBytes, String(neededBytes));
  return { tensors, metadata };
}

function readEntry(key: string, value: unknown, { name, dataStart }: { name: string; dataStart: number }): TensorEntry {
  const { dtype, shape, data_offsets: offsets } = isObject(value) ? value : {};
  if (typeof dtype !== 'string' || !isCounts(shape) || !isCounts(offsets) || offsets.length !== 2) {
    throw new ModelLoadFailedError(
      `The base model ${name} describes ${JSON.stringify(key)} wrongly: it is damaged, get it again.`,
    );
  }
  const [begin = 0, end = 0] = offsets;
  const itemBytes = DTYPE_BYTES.get(dtype);
  const expectedBytes = itemBytes === undefined ? end - begin : shape.reduce((total, side) => total * side, itemBytes);
  if (end - begin !== expectedBytes) {
    throw new ModelLoadFailedError(
      `The base model ${name} gives ${end - begin} bytes to ${JSON.stringify(key)}, but its shape needs ${expectedBytes}: it is damaged, get it again.`,
    );
  }
  return { dtype, shape, beginBytes: dataStart + begin, endBytes: dataStart + end };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
}

function notSafetensors(name: string): ModelLoadFailedError {
  return new ModelLoadFailedError(
    `The base model ${name} is no safetensors file, or a damaged one: get it again, or name another.`,
  );
}

function cutOff(name: string, sizeBytes: number, neededBytes: string): ModelLoadFailedError {
  return new ModelLoadFailedError(
    `The base model ${name} was cut off: it has ${sizeBytes} bytes and needs ${neededBytes}. Get it again.`,
  );
}
