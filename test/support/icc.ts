/** sRGB's colorants under D50, as in the ICC's own profile: https://www.color.org/srgbprofiles.xalter */
const SRGB_COLORANTS = {
  r: [0.43607, 0.22249, 0.01392],
  g: [0.38515, 0.71687, 0.09708],
  b: [0.14307, 0.06061, 0.7141],
} as const;

const D50 = [0.9642, 1, 0.8249] as const;

/** sRGB's encoding of a linear value, both 0 to 1. */
export function encodeSrgb(linear: number): number {
  return linear <= 0.0031308 ? 12.92 * linear : 1.055 * linear ** (1 / 2.4) - 0.055;
}

function decodeSrgb(value: number): number {
  return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
}

/** A profile whose values are sRGB's with red and green exchanged: what ignores it can't be taken for right. */
export function swappedProfile(): Buffer {
  const table = Array.from({ length: 1024 }, (_, i) => decodeSrgb(i / 1023));
  const { r, g, b } = SRGB_COLORANTS;
  return profile('RGB ', [
    ['rXYZ', xyz(g)],
    ['gXYZ', xyz(r)],
    ['bXYZ', xyz(b)],
    ...(['rTRC', 'gTRC', 'bTRC'] as const).map((name): [string, Buffer] => [name, curve(table)]),
  ]);
}

/** A profile of grey values that are linear in light. */
export function linearGreyProfile(): Buffer {
  return profile('GRAY', [['kTRC', curve([])]]);
}

/** A version 2 profile of a display: https://www.color.org/icc32.pdf */
function profile(space: 'RGB ' | 'GRAY', given: [string, Buffer][]): Buffer {
  const tags: [string, Buffer][] = [['wtpt', xyz(D50)], ...given];
  const table = Buffer.alloc(4 + 12 * tags.length);
  table.writeUInt32BE(tags.length);
  const header = Buffer.alloc(128);
  let offset = header.length + table.length;
  tags.forEach(([name, data], index) => {
    const at = 4 + 12 * index;
    table.write(name, at, 'latin1');
    table.writeUInt32BE(offset, at + 4);
    table.writeUInt32BE(data.length, at + 8);
    offset += data.length;
  });
  header.writeUInt32BE(offset, 0);
  header.writeUInt32BE(0x02400000, 8);
  header.write(`mntr${space}XYZ `, 12, 'latin1');
  header.write('acsp', 36, 'latin1');
  D50.forEach((value, index) => header.writeInt32BE(fixed(value), 68 + 4 * index));
  return Buffer.concat([header, table, ...tags.map(([, data]) => data)]);
}

function fixed(value: number): number {
  return Math.round(value * 65536);
}

function xyz(values: readonly number[]): Buffer {
  const data = Buffer.alloc(20);
  data.write('XYZ ', 'latin1');
  values.forEach((value, index) => data.writeInt32BE(fixed(value), 8 + 4 * index));
  return data;
}

/** No points: the identity. */
function curve(points: readonly number[]): Buffer {
  const data = Buffer.alloc(12 + 4 * Math.ceil(points.length / 2));
  data.write('curv', 'latin1');
  data.writeUInt32BE(points.length, 8);
  points.forEach((value, index) => data.writeUInt16BE(Math.round(value * 65535), 12 + 2 * index));
  return data;
}

/** Puts a profile into a JPEG file, before its other segments. */
export function jpegWithProfile(jpeg: Buffer, icc: Buffer): Buffer {
  const head = Buffer.from([0xff, 0xe2, 0, 0]);
  const body = Buffer.concat([Buffer.from('ICC_PROFILE\0\x01\x01', 'latin1'), icc]);
  head.writeUInt16BE(2 + body.length, 2);
  return Buffer.concat([jpeg.subarray(0, 2), head, body, jpeg.subarray(2)]);
}
