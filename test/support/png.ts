import { crc32, deflateSync } from 'node:zlib';

/** What a PNG is made of, see https://www.w3.org/TR/png-3/ */
export interface PngParts {
  widthPx: number;
  heightPx: number;
  /** Of a sample or of an index into the palette. */
  bitDepth: 1 | 2 | 4 | 8 | 16;
  /** 0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha. */
  colourType: 0 | 2 | 3 | 4 | 6;
  /** The samples of the pixel at a place. */
  samplesAt: (x: number, y: number) => number[];
  /** Between head and pixels, e.g. `PLTE`, `tRNS`, `eXIf`. */
  chunks?: [type: string, data: Uint8Array][];
}

/** Writes a PNG of any kind: image libraries write only some. */
export function pngOf({ widthPx, heightPx, bitDepth, colourType, samplesAt, chunks = [] }: PngParts): Buffer {
  const head = Buffer.alloc(13);
  head.writeUInt32BE(widthPx, 0);
  head.writeUInt32BE(heightPx, 4);
  head.set([bitDepth, colourType], 8);
  const rows = Array.from({ length: heightPx }, (_, y) => {
    const samples = Array.from({ length: widthPx }, (__, x) => samplesAt(x, y)).flat();
    return Buffer.concat([Buffer.of(0), packed(samples, bitDepth)]);
  });
  return Buffer.concat([
    Buffer.from('\x89PNG\r\n\x1a\n', 'latin1'),
    chunk('IHDR', head),
    ...chunks.map(([type, data]) => chunk(type, data)),
    chunk('IDAT', deflateSync(Buffer.concat(rows))),
    chunk('IEND', Buffer.of()),
  ]);
}

/** An `iCCP` chunk. */
export function profileChunk(profile: Uint8Array): [string, Buffer] {
  return ['iCCP', Buffer.concat([Buffer.from('test\0\0', 'latin1'), deflateSync(profile)])];
}

/** An `eXIf` chunk that holds nothing but an orientation. */
export function orientationChunk(orientation: number): [string, Buffer] {
  const entry = Buffer.from([0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0]);
  return ['eXIf', Buffer.concat([Buffer.from('MM\0*\0\0\0\x08\0\x01', 'latin1'), entry, Buffer.alloc(4)])];
}

function packed(samples: readonly number[], bitDepth: number): Buffer {
  const bits = samples.map((sample) => sample.toString(2).padStart(bitDepth, '0')).join('');
  const bytes = bits.match(/.{1,8}/g) ?? [];
  return Buffer.from(bytes.map((byte) => parseInt(byte.padEnd(8, '0'), 2)));
}

function chunk(type: string, data: Uint8Array): Buffer {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(data.length);
  const check = Buffer.alloc(4);
  check.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, check]);
}
