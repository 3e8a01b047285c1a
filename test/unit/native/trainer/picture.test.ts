import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp, { type Sharp } from 'sharp';
import {
  JOB_PICTURE_LIMITS,
  LOCAL_PICTURE_LIMITS,
  PictureFault,
  decodePicture,
  writePng,
} from '../../../../native/trainer/picture.ts';

const SIDE_PX = 64;

type Rgb = [number, number, number];

const RED: Rgb = [200, 30, 40];
const GREEN: Rgb = [20, 180, 60];
const BLUE: Rgb = [30, 60, 220];
const GREY: Rgb = [120, 120, 120];

/** Four quarters of one colour each: red, green / blue, grey. */
function quarters(sidePx = 128): Sharp {
  const pixels = Buffer.alloc(sidePx * sidePx * 3);
  for (let y = 0; y < sidePx; y++) {
    for (let x = 0; x < sidePx; x++) {
      const colour = y < sidePx / 2 ? (x < sidePx / 2 ? RED : GREEN) : x < sidePx / 2 ? BLUE : GREY;
      pixels.set(colour, (y * sidePx + x) * 3);
    }
  }
  return sharp(pixels, { raw: { width: sidePx, height: sidePx, channels: 3 } });
}

/** Colours in the middle of the four quarters, in reading order. */
async function quartersOf(bytes: Uint8Array): Promise<Rgb[]> {
  const { pixels, widthPx, heightPx } = await decodePicture(bytes, SIDE_PX, LOCAL_PICTURE_LIMITS);
  assert.deepEqual([widthPx, heightPx, pixels.length], [SIDE_PX, SIDE_PX, SIDE_PX * SIDE_PX * 3]);
  const at = (x: number, y: number): Rgb => {
    const [r = 0, g = 0, b = 0] = pixels.subarray((y * SIDE_PX + x) * 3);
    return [r, g, b];
  };
  return [at(16, 16), at(48, 16), at(16, 48), at(48, 48)];
}

function assertNear(found: Rgb[], wanted: Rgb[], tolerance: number): void {
  const difference = Math.max(...found.flat().map((value, index) => Math.abs(value - (wanted.flat()[index] ?? 0))));
  assert.ok(difference <= tolerance, `${JSON.stringify(found)} instead of ${JSON.stringify(wanted)}`);
}

const UPRIGHT = [RED, GREEN, BLUE, GREY];

describe('decodePicture', () => {
  const variants: [name: string, encode: () => Promise<Buffer>, tolerance: number][] = [
    ['a PNG', () => quarters().png().toBuffer(), 0],
    ['a JPEG', () => quarters().jpeg({ quality: 100, chromaSubsampling: '4:4:4' }).toBuffer(), 3],
    ['a progressive JPEG with subsampled colours', () => quarters().jpeg({ progressive: true }).toBuffer(), 6],
    ['a lossless WebP', () => quarters().webp({ lossless: true }).toBuffer(), 0],
    ['a PNG of 16 bits', () => quarters().toColourspace('rgb16').png().toBuffer(), 1],
    ['a PNG with a palette', () => quarters().png({ palette: true }).toBuffer(), 3],
    ['an interlaced PNG', () => quarters().png({ progressive: true }).toBuffer(), 0],
    ['an opaque PNG with alpha', () => quarters().ensureAlpha(1).png().toBuffer(), 0],
    ['a JPEG with a wide-gamut profile', () => quarters().withIccProfile('p3').jpeg({ quality: 100 }).toBuffer(), 6],
  ];
  for (const [name, encode, tolerance] of variants) {
    it(`reads ${name}`, async () => assertNear(await quartersOf(await encode()), UPRIGHT, tolerance));
  }

  it('reads a CMYK JPEG as sRGB', async () => {
    const bytes = await quarters().toColourspace('cmyk').withIccProfile('cmyk').jpeg({ quality: 100 }).toBuffer();
    assert.equal((await sharp(bytes).metadata()).space, 'cmyk');
    // Strong green and blue lie outside the profile's gamut: of them only the hue can come back.
    const [red, green, blue, grey] = (await quartersOf(bytes)) as [Rgb, Rgb, Rgb, Rgb];
    assertNear([red, grey], [RED, GREY], 20);
    assert.ok(green[1] > green[0] + 50 && green[1] > green[2] + 50, `green ${green.join()}`);
    assert.ok(blue[2] > blue[0] + 50 && blue[2] > blue[1] + 50, `blue ${blue.join()}`);
  });

  for (const [name, options] of [
    ['greyscale', {}],
    ['greyscale with 16 bits', { bits: 16 }],
  ] as const) {
    it(`reads ${name} as three equal channels`, async () => {
      const grey = quarters().greyscale();
      const bytes = await ('bits' in options ? grey.toColourspace('grey16') : grey).png().toBuffer();
      for (const [r, g, b] of await quartersOf(bytes)) assert.ok(r === g && g === b, `${r} ${g} ${b}`);
    });
  }

  it('puts transparent parts on white, also those of a greyscale and of a palette', async () => {
    const clear = {
      create: { width: 128, height: 128, channels: 4 as const, background: { r: 9, g: 9, b: 9, alpha: 0 } },
    };
    const half = { create: { ...clear.create, background: { r: 0, g: 0, b: 0, alpha: 0.5 } } };
    const white: Rgb = [255, 255, 255];
    const cases: [Buffer, Rgb][] = [
      [await sharp(clear).png().toBuffer(), white],
      [await sharp(clear).webp({ lossless: true }).toBuffer(), white],
      [await sharp(clear).greyscale().png().toBuffer(), white],
      [await sharp(clear).png({ palette: true }).toBuffer(), white],
      [await sharp(clear).toColourspace('rgb16').png().toBuffer(), white],
      [await sharp(half).png().toBuffer(), [127, 127, 127]],
    ];
    for (const [bytes, wanted] of cases) assertNear(await quartersOf(bytes), [wanted, wanted, wanted, wanted], 2);
  });

  // https://www.cipa.jp/std/documents/download_e.html?CIPA_DC-008-2023-E (4.6.5.1.6 Orientation)
  const ORIENTATIONS: Record<number, Rgb[]> = {
    1: [RED, GREEN, BLUE, GREY],
    2: [GREEN, RED, GREY, BLUE],
    3: [GREY, BLUE, GREEN, RED],
    4: [BLUE, GREY, RED, GREEN],
    5: [RED, BLUE, GREEN, GREY],
    6: [BLUE, RED, GREY, GREEN],
    7: [GREY, GREEN, BLUE, RED],
    8: [GREEN, GREY, RED, BLUE],
  };
  for (const [orientation, wanted] of Object.entries(ORIENTATIONS)) {
    it(`turns a picture with EXIF orientation ${orientation} upright`, async () => {
      const bytes = await quarters()
        .withMetadata({ orientation: Number(orientation) })
        .jpeg({ quality: 100 })
        .toBuffer();
      assertNear(await quartersOf(bytes), wanted, 6);
    });
  }

  it('cuts the middle out of a long picture, after turning it', async () => {
    const stripe = (colour: Rgb) => ({
      create: {
        width: 100,
        height: 300,
        channels: 3 as const,
        background: { r: colour[0], g: colour[1], b: colour[2] },
      },
    });
    const wide = sharp({ create: { width: 900, height: 300, channels: 3, background: '#000000' } }).composite([
      { input: await sharp(stripe(RED)).resize(300, 300).png().toBuffer(), left: 0, top: 0 },
      { input: await sharp(stripe(GREEN)).resize(300, 300).png().toBuffer(), left: 300, top: 0 },
      { input: await sharp(stripe(BLUE)).resize(300, 300).png().toBuffer(), left: 600, top: 0 },
    ]);
    const png = await wide.png().toBuffer();
    assertNear(await quartersOf(png), [GREEN, GREEN, GREEN, GREEN], 2);
    const turned = await sharp(png).withMetadata({ orientation: 6 }).jpeg({ quality: 100 }).toBuffer();
    assertNear(await quartersOf(turned), [GREEN, GREEN, GREEN, GREEN], 4);
  });

  it('enlarges small pictures, down to a single pixel', async () => {
    const one = sharp({ create: { width: 1, height: 1, channels: 3, background: { r: 200, g: 30, b: 40 } } });
    assertNear(await quartersOf(await one.png().toBuffer()), [RED, RED, RED, RED], 0);
    const line = sharp({ create: { width: 3, height: 500, channels: 3, background: { r: 30, g: 60, b: 220 } } });
    assertNear(await quartersOf(await line.png().toBuffer()), [BLUE, BLUE, BLUE, BLUE], 0);
  });

  it('takes the first frame of an animation', async () => {
    const frames = [RED, GREEN].map(([r, g, b]) => ({
      create: { width: 64, height: 64, channels: 3 as const, background: { r, g, b } },
    }));
    const inputs = await Promise.all(frames.map((frame) => sharp(frame).png().toBuffer()));
    const bytes = await sharp(inputs, { join: { animated: true } })
      .webp({ lossless: true })
      .toBuffer();
    assert.equal((await sharp(bytes).metadata()).pages, 2);
    assertNear(await quartersOf(bytes), [RED, RED, RED, RED], 0);
  });

  it('gives equal pixels for equal bytes', async () => {
    const bytes = await quarters(777).jpeg().toBuffer();
    const [first, second] = await Promise.all([1, 2].map(() => decodePicture(bytes, SIDE_PX, LOCAL_PICTURE_LIMITS)));
    assert.deepEqual(first, second);
  });

  describe('refuses', () => {
    const refuses = (bytes: Uint8Array, words: RegExp, limits = LOCAL_PICTURE_LIMITS) =>
      assert.rejects(decodePicture(bytes, SIDE_PX, limits), (error) => {
        assert.ok(error instanceof PictureFault, String(error));
        assert.match(error.message, words);
        assert.ok(!error.message.includes('\n'));
        return true;
      });

    it('what other decoders would take', async () => {
      const svg = Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>');
      await refuses(svg, /^is not a JPEG, PNG or WebP$/);
      await refuses(await quarters().gif().toBuffer(), /^is not a JPEG, PNG or WebP$/);
      await refuses(await quarters().tiff().toBuffer(), /^is not a JPEG, PNG or WebP$/);
      await refuses(Buffer.alloc(0), /^is not a JPEG, PNG or WebP$/);
    });

    for (const format of ['png', 'jpeg', 'webp'] as const) {
      it(`a ${format} that is cut off anywhere`, async () => {
        const bytes = await quarters().toFormat(format).toBuffer();
        for (const share of [0.02, 0.3, 0.6, 0.9]) {
          await refuses(bytes.subarray(0, Math.floor(bytes.length * share)), /^(can't be decoded|is not a JPEG)/);
        }
      });
    }

    it('or reads a damaged picture, but never breaks', async () => {
      const formats = ['png', 'jpeg', 'webp'] as const;
      let state = 1;
      const random = (limit: number) => (state = (state * 48271) % 2147483647) % limit;
      for (let round = 0; round < 60; round++) {
        const bytes = await quarters(96)
          .toFormat(formats[round % 3] ?? 'png')
          .toBuffer();
        for (let count = 0; count < 8; count++) bytes[random(bytes.length)] = random(256);
        try {
          const { pixels } = await decodePicture(bytes, SIDE_PX, LOCAL_PICTURE_LIMITS);
          assert.equal(pixels.length, SIDE_PX * SIDE_PX * 3);
        } catch (error) {
          assert.ok(error instanceof PictureFault, `round ${round}: ${String(error)}`);
        }
      }
    });

    it('small files that unpack to gigabytes', async () => {
      const bomb = sharp({ create: { width: 20_000, height: 6_000, channels: 3, background: '#ffffff' } });
      await refuses(await bomb.png({ compressionLevel: 1 }).toBuffer(), /can't be decoded .*pixel limit/i);
    }).timeout(30_000);

    it("what a job's limits forbid, with the figures", async () => {
      await refuses(
        await quarters(254).png().toBuffer(),
        /is 254×254 px: each side needs at least 256 px/,
        JOB_PICTURE_LIMITS,
      );
      await refuses(
        Buffer.alloc(10 * 2 ** 20 + 1),
        /has 10\.0 MiB, more than the 10\.0 MiB allowed/,
        JOB_PICTURE_LIMITS,
      );
      await decodePicture(await quarters(256).png().toBuffer(), SIDE_PX, JOB_PICTURE_LIMITS);
    });
  });
});

describe('writePng', () => {
  it('writes what it got and leaves nothing else', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'brushwork-png-'));
    try {
      const picture = await decodePicture(await quarters().png().toBuffer(), SIDE_PX, LOCAL_PICTURE_LIMITS);
      await writePng(picture, join(directory, 'a.png'));
      assert.deepEqual(await readdir(directory), ['a.png']);
      const { data } = await sharp(join(directory, 'a.png')).raw().toBuffer({ resolveWithObject: true });
      assert.ok(data.equals(picture.pixels));
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});
