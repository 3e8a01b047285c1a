import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import sharp from 'sharp';
import { LOCAL_PICTURE_LIMITS, decodePicture } from '../../../../native/trainer/picture.ts';
import { encodeSrgb, jpegWithProfile, linearGreyProfile, swappedProfile } from '../../../support/icc.ts';
import { type PngParts, orientationChunk, pngOf, profileChunk } from '../../../support/png.ts';

const SIDE_PX = 32;

type Rgb = [number, number, number];

/** Left and right half of a picture as the trainer sees it. */
async function halvesOf(bytes: Uint8Array): Promise<[Rgb, Rgb]> {
  const { pixels } = await decodePicture(bytes, SIDE_PX, LOCAL_PICTURE_LIMITS);
  const at = (x: number): Rgb => {
    const [r = 0, g = 0, b = 0] = pixels.subarray(((SIDE_PX / 2) * SIDE_PX + x) * 3);
    return [r, g, b];
  };
  return [at(SIDE_PX / 4), at((3 * SIDE_PX) / 4)];
}

function assertNear(found: readonly Rgb[], wanted: readonly Rgb[], tolerance: number): void {
  const difference = Math.max(...found.flat().map((value, index) => Math.abs(value - (wanted.flat()[index] ?? 0))));
  assert.ok(difference <= tolerance, `${JSON.stringify(found)} instead of ${JSON.stringify(wanted)}`);
}

/** A PNG of 64×64 px with one pixel value on the left and another on the right. */
function halves(left: number[], right: number[], rest: Omit<PngParts, 'widthPx' | 'heightPx' | 'samplesAt'>): Buffer {
  return pngOf({ widthPx: 64, heightPx: 64, samplesAt: (x) => (x < 32 ? left : right), ...rest });
}

const grey = (value: number): Rgb => [value, value, value];
const LEFT: Rgb = [200, 30, 40];
const RIGHT: Rgb = [20, 180, 60];
const swapped = ([r, g, b]: Rgb): Rgb => [g, r, b];
const wide = (colour: readonly number[]) => colour.map((value) => value * 257);
const linear = (value: number) => Math.round(255 * encodeSrgb(value));

describe('decodePicture, kinds of pictures', () => {
  const cases: [name: string, bytes: Buffer, wanted: [Rgb, Rgb], tolerance: number][] = [
    ['RGB of 8 bits', halves(LEFT, RIGHT, { bitDepth: 8, colourType: 2 }), [LEFT, RIGHT], 0],
    ['RGB of 16 bits', halves(wide(LEFT), wide(RIGHT), { bitDepth: 16, colourType: 2 }), [LEFT, RIGHT], 0],
    ['grey of 1 bit', halves([0], [1], { bitDepth: 1, colourType: 0 }), [grey(0), grey(255)], 0],
    ['grey of 2 bits', halves([1], [2], { bitDepth: 2, colourType: 0 }), [grey(85), grey(170)], 0],
    ['grey of 4 bits', halves([1], [14], { bitDepth: 4, colourType: 0 }), [grey(17), grey(238)], 0],
    ['grey of 16 bits', halves([70 * 257], [201 * 257], { bitDepth: 16, colourType: 0 }), [grey(70), grey(201)], 0],
    [
      'a palette of 1 bit',
      halves([0], [1], { bitDepth: 1, colourType: 3, chunks: [['PLTE', Buffer.from([...LEFT, ...RIGHT])]] }),
      [LEFT, RIGHT],
      0,
    ],
    [
      'a palette of 4 bits with half transparent and clear colours',
      halves([1], [2], {
        bitDepth: 4,
        colourType: 3,
        chunks: [
          ['PLTE', Buffer.from([9, 9, 9, ...LEFT, ...RIGHT])],
          ['tRNS', Buffer.from([255, 51, 0])],
        ],
      }),
      // A fifth of the colour, four fifths of white.
      [[244, 210, 212], grey(255)],
      1,
    ],
    [
      'RGB in which one colour counts as clear',
      halves(LEFT, RIGHT, { bitDepth: 8, colourType: 2, chunks: [['tRNS', Buffer.from([0, 20, 0, 180, 0, 60])]] }),
      [LEFT, grey(255)],
      0,
    ],
    [
      'grey in which one value counts as clear',
      halves([70], [80], { bitDepth: 8, colourType: 0, chunks: [['tRNS', Buffer.from([0, 80])]] }),
      [grey(70), grey(255)],
      0,
    ],
    [
      'grey of 16 bits with alpha',
      halves([0, 65535], [0, 32768], { bitDepth: 16, colourType: 4 }),
      [grey(0), grey(127)],
      1,
    ],
    [
      'RGB of 16 bits with alpha',
      halves([...wide(LEFT), 65535], [...wide(RIGHT), 13107], { bitDepth: 16, colourType: 6 }),
      [LEFT, [208, 240, 216]],
      1,
    ],
    [
      'RGB with an ICC profile',
      halves(LEFT, RIGHT, { bitDepth: 8, colourType: 2, chunks: [profileChunk(swappedProfile())] }),
      [swapped(LEFT), swapped(RIGHT)],
      2,
    ],
    [
      'a palette with an ICC profile',
      halves([0], [1], {
        bitDepth: 1,
        colourType: 3,
        chunks: [profileChunk(swappedProfile()), ['PLTE', Buffer.from([...LEFT, ...RIGHT])]],
      }),
      [swapped(LEFT), swapped(RIGHT)],
      2,
    ],
    [
      'RGB with alpha and an ICC profile: white is put behind afterwards',
      halves([...LEFT, 51], [...RIGHT, 0], { bitDepth: 8, colourType: 6, chunks: [profileChunk(swappedProfile())] }),
      [[210, 244, 212], grey(255)],
      2,
    ],
    [
      'RGB of 16 bits with an ICC profile',
      halves(wide(LEFT), wide(RIGHT), { bitDepth: 16, colourType: 2, chunks: [profileChunk(swappedProfile())] }),
      [swapped(LEFT), swapped(RIGHT)],
      2,
    ],
    [
      'RGB of 16 bits with alpha and an ICC profile',
      halves([...wide(LEFT), 13107], [...wide(RIGHT), 65535], {
        bitDepth: 16,
        colourType: 6,
        chunks: [profileChunk(swappedProfile())],
      }),
      [[210, 244, 212], swapped(RIGHT)],
      2,
    ],
    [
      'grey with an ICC profile',
      halves([51], [153], { bitDepth: 8, colourType: 0, chunks: [profileChunk(linearGreyProfile())] }),
      [grey(linear(0.2)), grey(linear(0.6))],
      2,
    ],
    [
      'grey of 16 bits with an ICC profile',
      halves([13107], [39321], { bitDepth: 16, colourType: 0, chunks: [profileChunk(linearGreyProfile())] }),
      [grey(linear(0.2)), grey(linear(0.6))],
      2,
    ],
    [
      'grey of 16 bits with alpha and an ICC profile',
      halves([13107, 65535], [39321, 0], { bitDepth: 16, colourType: 4, chunks: [profileChunk(linearGreyProfile())] }),
      [grey(linear(0.2)), grey(255)],
      2,
    ],
    [
      'a profile that is none: the values count as sRGB',
      halves(LEFT, RIGHT, { bitDepth: 8, colourType: 2, chunks: [profileChunk(Buffer.from('no profile'))] }),
      [LEFT, RIGHT],
      0,
    ],
    [
      'an orientation in a PNG: upside down',
      halves(LEFT, RIGHT, { bitDepth: 8, colourType: 2, chunks: [orientationChunk(3)] }),
      [RIGHT, LEFT],
      0,
    ],
  ];
  for (const [name, bytes, wanted, tolerance] of cases) {
    it(name, async () => assertNear(await halvesOf(bytes), wanted, tolerance));
  }

  const png = halves(LEFT, RIGHT, { bitDepth: 8, colourType: 2 });

  it('a JPEG with an ICC profile', async () => {
    const plain = await sharp(png).jpeg({ quality: 100, chromaSubsampling: '4:4:4' }).toBuffer();
    assertNear(await halvesOf(jpegWithProfile(plain, swappedProfile())), [swapped(LEFT), swapped(RIGHT)], 4);
  });

  it('a grey JPEG with an ICC profile', async () => {
    const values = halves([51], [153], { bitDepth: 8, colourType: 0 });
    const plain = await sharp(values).toColourspace('b-w').jpeg({ quality: 100 }).toBuffer();
    assert.equal((await sharp(plain).metadata()).channels, 1);
    const bytes = jpegWithProfile(plain, linearGreyProfile());
    assertNear(await halvesOf(bytes), [grey(linear(0.2)), grey(linear(0.6))], 3);
  });

  it('an orientation in a WebP', async () => {
    const bytes = await sharp(png).withMetadata({ orientation: 3 }).webp({ lossless: true }).toBuffer();
    assertNear(await halvesOf(bytes), [RIGHT, LEFT], 0);
  });

  describe('CMYK JPEGs without a profile', () => {
    const file = path.join(import.meta.dirname, '../../../reference/cmyk_golden.json');
    const files = JSON.parse(readFileSync(file, 'utf8')) as Record<string, string>;
    const inks = async (name: string) => {
      const bytes = Buffer.from(files[name] ?? assert.fail(name), 'base64');
      const { space, hasProfile } = await sharp(bytes).metadata();
      assert.deepEqual([space, hasProfile], ['cmyk', false]);
      return halvesOf(bytes);
    };

    it('have white paper and dark black', async () => {
      const [paper, black] = await inks('paper and black');
      assertNear([paper], [grey(255)], 3);
      assert.ok(Math.max(...black) < 70, black.join());
    });

    it('keep the hue of strong inks', async () => {
      const [cyan, red] = await inks('cyan and red');
      assert.ok(cyan[0] < 60 && cyan[1] > 130 && cyan[2] > 190, cyan.join());
      assert.ok(red[0] > 190 && red[1] < 70 && red[2] < 80, red.join());
    });

    it('keep grey grey, and yellow bright', async () => {
      const [half, yellow] = await inks('half grey and yellow');
      assertNear([half], [grey(140)], 30);
      assert.ok(Math.max(...half) - Math.min(...half) < 15, half.join());
      assert.ok(yellow[0] > 220 && yellow[1] > 200 && yellow[2] < 80, yellow.join());
    });
  });
});
