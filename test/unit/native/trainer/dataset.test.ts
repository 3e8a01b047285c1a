import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { ImageInvalidError, TooFewImagesError } from '../../../../common/errors.ts';
import { listPictures, readDataset } from '../../../../native/trainer/dataset.ts';

const OPTIONS = { fallbackCaption: 'the fallback', resolutionPx: 64 };

describe('readDataset', () => {
  let directory: string;
  let png: Buffer;

  before(async () => {
    png = await sharp({ create: { width: 70, height: 80, channels: 3, background: '#804020' } })
      .png()
      .toBuffer();
  });

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'brushwork-dataset-'));
  });

  afterEach(() => rm(directory, { recursive: true }));

  const put = (name: string, content: Uint8Array | string = png) => writeFile(join(directory, name), content);

  const captionOf = async (caption: Uint8Array | string) => {
    await put('a.png');
    await put('a.txt', caption);
    const [picture] = await readDataset(directory, OPTIONS);
    return [picture?.caption, picture?.hasOwnCaption];
  };

  it('sorts by code point, as the recipe does, and ignores what is no picture', async () => {
    // U+FF5A comes before U+1F3A8 by code point, after it by UTF-16 unit.
    const names = ['10.png', '9.png', 'B.PNG', 'a.png', 'é.png', '\u{ff5a}.png', '\u{1f3a8}.png'];
    for (const name of [...names].reverse()) await put(name);
    for (const name of ['notes.txt', '.hidden.png', 'list.csv', 'png']) await put(name);
    assert.deepEqual(await listPictures(directory), names);
    assert.deepEqual(
      (await readDataset(directory, OPTIONS)).map(({ name }) => name),
      names,
    );
  });

  it('gives each picture its own caption or the fallback', async () => {
    for (const name of ['one.png', 'two.v2.png', 'three.png']) await put(name);
    await put('one.txt', '  a red house\n');
    await put('two.v2.txt', 'a blue house');
    await put('three.txt', ' \n');
    const found = (await readDataset(directory, OPTIONS)).map((picture) => [
      picture.name,
      picture.caption,
      picture.hasOwnCaption,
    ]);
    assert.deepEqual(found, [
      ['one.png', 'a red house', true],
      ['three.png', 'the fallback', false],
      ['two.v2.png', 'a blue house', true],
    ]);
  });

  it('reads captions as editors save them', async () => {
    const wide = Buffer.from('\u{feff}집과 나무', 'utf16le');
    assert.deepEqual(await captionOf(wide), ['집과 나무', true]);
    assert.deepEqual(await captionOf(Buffer.from(wide).swap16()), ['집과 나무', true]);
    assert.deepEqual(await captionOf('\u{feff}집과 나무'), ['집과 나무', true]);
    assert.deepEqual(await captionOf('\u{feff}'), ['the fallback', false]);
  });

  it('puts the trigger word in front of captions that lack it, be they fallbacks or not', async () => {
    for (const name of ['a.png', 'b.png', 'c.png']) await put(name);
    await put('a.txt', 'a red house');
    await put('b.txt', 'an Inkwash of a house');
    const pictures = await readDataset(directory, { ...OPTIONS, triggerWord: 'inkwash' });
    assert.deepEqual(
      pictures.map(({ caption }) => caption),
      ['inkwash, a red house', 'an Inkwash of a house', 'inkwash, the fallback'],
    );
  });

  it('cuts out the middle, or stretches the whole', async () => {
    const background = { r: 255, g: 255, b: 255 };
    const black = { create: { width: 100, height: 50, channels: 3 as const, background: '#000000' } };
    const picture = sharp({ create: { width: 100, height: 300, channels: 3, background } });
    await put(
      'a.png',
      await picture
        .composite([{ input: black, top: 0, left: 0 }])
        .png()
        .toBuffer(),
    );
    const topOf = async (resizeMode?: 'crop' | 'stretch') => {
      const [found] = await readDataset(directory, { ...OPTIONS, ...(resizeMode && { resizeMode }) });
      assert.deepEqual([found?.widthPx, found?.heightPx], [64, 64]);
      return found?.pixels[0];
    };
    assert.deepEqual([await topOf(), await topOf('crop'), await topOf('stretch')], [255, 255, 0]);
  });

  it('names every unusable picture and caption in one sentence', async () => {
    for (const name of ['a.png', 'b.png', 'c.png', 'd.png', 'e.png']) await put(name);
    await put('b.png', 'no picture');
    await put('c.txt', Buffer.from([0x66, 0xfc, 0x72]));
    await put('d.txt', 'x'.repeat(70_000));
    await put('e.png', png.subarray(0, 60));
    await assert.rejects(readDataset(directory, OPTIONS), (error) => {
      assert.ok(error instanceof ImageInvalidError);
      assert.match(
        error.message,
        /^4 of 5 pictures can't be used: b\.png is not .*; c\.png has a caption that is not UTF-8 text; d\.png has a caption of more than 65536 bytes; e\.png can't be decoded .*\. Replace or remove them\.$/,
      );
      return true;
    });
  });

  it('names a folder that is called like a picture', async () => {
    await put('a.png');
    await mkdir(join(directory, 'b.png'));
    await assert.rejects(
      readDataset(directory, OPTIONS),
      /1 of 2 pictures can't be used: b\.png is a directory, not a file/,
    );
  });

  it('says that there are no pictures, or no directory', async () => {
    await put('a.txt', 'a caption');
    await assert.rejects(readDataset(directory, OPTIONS), TooFewImagesError);
    await assert.rejects(readDataset(join(directory, 'none'), OPTIONS), /none can't be read: is it a directory/);
  });
});
