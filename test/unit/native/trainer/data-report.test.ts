import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import sharp from 'sharp';
import { type InspectOptions, doubtLines, inspectDirectory } from '../../../../native/trainer/data-report.ts';
import { JOB_PICTURE_LIMITS, LOCAL_PICTURE_LIMITS } from '../../../../native/trainer/picture.ts';
import { hashDistance, inspectPicture } from '../../../../native/trainer/picture-facts.ts';
import { swappedProfile } from '../../../support/icc.ts';
import { orientationChunk, pngOf, profileChunk } from '../../../support/png.ts';

const FIXTURES = path.join(import.meta.dirname, '../../../fixtures/pictures');
const PLAN = { resolutionPx: 256, resizeMode: 'crop', limits: LOCAL_PICTURE_LIMITS } as const;
const OPTIONS: InspectOptions = { ...PLAN, fallbackCaption: 'the fallback', triggerWord: null };

const fixture = (name: string) => path.join(FIXTURES, name);

/** A photograph in another size. */
async function photo(widthPx: number, heightPx: number, name = 'cat.jpg'): Promise<Buffer> {
  return sharp(fixture(name)).resize(widthPx, heightPx, { fit: 'fill' }).png().toBuffer();
}

describe('inspectPicture', () => {
  it('tells what a plain picture is, and has nothing to say against it', async () => {
    const facts = await inspectPicture(await photo(300, 300), PLAN);
    const { perceptualHash, ...rest } = facts;
    assert.match(perceptualHash ?? '', /^[0-9a-f]{16}$/);
    assert.deepEqual(rest, {
      format: 'png',
      widthPx: 300,
      heightPx: 300,
      trainedSize: { widthPx: 256, heightPx: 256 },
      colours: 'RGB',
      done: ['reduced to 256×256'],
      faults: [],
      doubts: [],
    });
  });

  it('tells all that is done to a picture', async () => {
    const bytes = pngOf({
      widthPx: 300,
      heightPx: 400,
      bitDepth: 16,
      colourType: 6,
      samplesAt: (x, y) => [x * 200, y * 150, (x % 7) * 9000, 65535],
      chunks: [profileChunk(swappedProfile()), orientationChunk(6)],
    });
    const { colours, widthPx, heightPx, done, doubts } = await inspectPicture(bytes, PLAN);
    assert.deepEqual([colours, widthPx, heightPx], ['RGB, 16 bits, alpha, ICC profile', 400, 300]);
    assert.deepEqual(done, [
      'turned upright (EXIF orientation 6)',
      '16 bits made 8',
      'ICC profile made sRGB',
      'transparency put on white',
      'cut to the middle 300×300',
      'reduced to 256×256',
    ]);
    assert.deepEqual(doubts, []);
  });

  for (const [what, size, resizeMode, done] of [
    ['a picture of the right size', [256, 256], 'crop', []],
    ['one that needs no resizing but a cut', [300, 256], 'crop', ['cut to the middle 256×256']],
    ['one that is stretched', [300, 256], 'stretch', ['stretched to 256×256']],
    ['a square one, for which both are the same', [512, 512], 'stretch', ['reduced to 256×256']],
    ['the bucket of a square one', [300, 300], 'bucket', ['reduced to 256×256']],
    ['a picture that has the shape of its bucket', [600, 360], 'bucket', ['reduced to 320×192']],
    [
      'a bucket and what it loses',
      [400, 300],
      'bucket',
      ['cut to the middle 400×240, 20 % lost', 'reduced to 320×192'],
    ],
  ] as const) {
    it(`knows ${what}`, async () => {
      const facts = await inspectPicture(await photo(size[0], size[1]), { ...PLAN, resizeMode });
      assert.deepEqual(facts.done, done);
      assert.deepEqual(facts.doubts, []);
    });
  }

  for (const [what, size, plan, doubts] of [
    ['small ones', [200, 200], { limits: JOB_PICTURE_LIMITS }, [/^is enlarged 1\.3 times/]],
    ['what the crop loses', [600, 300], {}, [/^loses 50 % to the crop/]],
    ['what a bucket loses', [2000, 290], { resizeMode: 'bucket' }, [/^loses 42 % to the crop: cut it by hand$/]],
    ['what stretching bends', [600, 300], { resizeMode: 'stretch' }, [/^is squeezed 2\.0 times/]],
    ['what the service would refuse', [300, 250], {}, [/^would be refused by the service: it is 300×250 px/]],
  ] as const) {
    it(`doubts ${what}`, async () => {
      const found = await inspectPicture(await photo(size[0], size[1]), { ...PLAN, ...plan });
      assert.equal(found.doubts.length, doubts.length, found.doubts.join('\n'));
      doubts.forEach((pattern, index) => assert.match(found.doubts[index] ?? '', pattern));
    });
  }

  it('doubts a picture of one colour, but not a calm one', async () => {
    const flat = sharp({ create: { width: 300, height: 300, channels: 3, background: '#336699' } });
    const { doubts, perceptualHash } = await inspectPicture(await flat.png().toBuffer(), PLAN);
    assert.deepEqual([doubts, perceptualHash], [['is of nearly one colour'], null]);
    const { doubts: none } = await inspectPicture(await photo(300, 300, 'gravel.jpg'), PLAN);
    assert.deepEqual(none, []);
  });

  it('names all faults of a picture, and what can be told of it nevertheless', async () => {
    const bytes = await photo(250, 300);
    const damaged = await inspectPicture(bytes.subarray(0, bytes.length / 2), { ...PLAN, limits: JOB_PICTURE_LIMITS });
    assert.deepEqual([damaged.format, damaged.widthPx, damaged.heightPx], ['png', 250, 300]);
    assert.equal(damaged.faults.length, 2, damaged.faults.join('\n'));
    assert.match(damaged.faults[0] ?? '', /^is 250×300 px: each side needs at least 256 px$/);
    assert.match(damaged.faults[1] ?? '', /^can't be decoded/);
    const { format, faults } = await inspectPicture(Buffer.from('nothing'), PLAN);
    assert.deepEqual([format, faults], [null, ['is not a JPEG, PNG or WebP']]);
    const big = await inspectPicture(Buffer.alloc(11 * 2 ** 20), { ...PLAN, limits: JOB_PICTURE_LIMITS });
    assert.deepEqual(big.faults, ['has 11.0 MiB, more than the 10.0 MiB allowed', 'is not a JPEG, PNG or WebP']);
  });

  describe('perceptual hash', () => {
    const hashOf = async (bytes: Buffer) => (await inspectPicture(bytes, PLAN)).perceptualHash ?? assert.fail();

    it('is nearly the same for copies, and another for other pictures', async () => {
      const names = ['cat', 'coffee', 'flower', 'grass', 'gravel', 'palace', 'rocket', 'sunset'];
      const originals = await Promise.all(names.map((name) => photo(384, 384, `${name}.jpg`)));
      const hashes = await Promise.all(originals.map(hashOf));
      for (const [index, original] of originals.entries()) {
        const copies = [
          await sharp(original).jpeg({ quality: 40 }).toBuffer(),
          await sharp(original).resize(150).webp().toBuffer(),
          await sharp(original).modulate({ brightness: 1.1 }).png().toBuffer(),
        ];
        for (const copy of copies) assert.ok(hashDistance(await hashOf(copy), hashes[index] ?? '') <= 4, names[index]);
        for (const other of hashes.slice(index + 1)) {
          assert.ok(hashDistance(hashes[index] ?? '', other) > 10, `${names[index]} and another`);
        }
      }
    });

    it('counts differing bits', () => {
      assert.equal(hashDistance('ffffffffffffffff', '0000000000000000'), 64);
      assert.equal(hashDistance('8000000000000001', '8000000000000003'), 1);
    });
  });
});

describe('inspectDirectory', () => {
  let directory: string;

  beforeEach(async () => {
    directory = await mkdtemp(path.join(tmpdir(), 'brushwork-inspect-'));
  });
  afterEach(() => rm(directory, { recursive: true }));

  const put = (name: string, content: Uint8Array | string) => writeFile(path.join(directory, name), content);

  it('says of each picture which caption it gets', async () => {
    for (const name of ['cat', 'coffee', 'flower'])
      await copyFile(fixture(`${name}.jpg`), path.join(directory, `${name}.jpg`));
    await put('cat.txt', 'a cat');
    await put('coffee.txt', Buffer.from([0x66, 0xfc, 0x72]));
    const { pictures } = await inspectDirectory(directory, { ...OPTIONS, triggerWord: 'inkwash' });
    assert.deepEqual(
      pictures.map(({ name, caption, captionFrom, faults }) => [name, caption, captionFrom, faults]),
      [
        ['cat.jpg', 'inkwash, a cat', 'file', []],
        ['coffee.jpg', null, 'fallback', ['has a caption that is not UTF-8 text']],
        ['flower.jpg', 'inkwash, the fallback', 'fallback', []],
      ],
    );
  });

  it('finds copies, the same file and others that look alike', async () => {
    await put('a.png', await photo(400, 400));
    await put('b.png', await photo(400, 400));
    await put('c.png', await photo(280, 280));
    await put('d.png', await photo(400, 400, 'palace.jpg'));
    const { pictures } = await inspectDirectory(directory, OPTIONS);
    assert.deepEqual(
      pictures.map(({ doubts }) => doubts),
      [
        [],
        ['is the same file as a.png: remove one of them'],
        ['looks like a.png: remove one of them if it is a copy'],
        [],
      ],
    );
  });

  it('tells what concerns the whole', async () => {
    for (const name of ['a.png', 'a.jpg', 'b.png']) await put(name, await photo(300, 300, 'palace.jpg'));
    await put('a.txt', 'one caption');
    for (const name of ['lost.txt', 'photo.heic', 'list.json', '.hidden']) await put(name, 'x');
    const report = await inspectDirectory(directory, OPTIONS);
    assert.deepEqual(report.doubts, [
      'no JPEG, PNG or WebP, and ignored: photo.heic',
      'text files without a picture: lost.txt',
      'a.jpg and a.png share one caption',
      '3 pictures: the service takes 10 to 100',
      '1 of 3 pictures have no caption of their own, unlike the others',
    ]);
    assert.deepEqual(doubtLines(report).slice(0, 2), [
      'a.png is the same file as a.jpg: remove one of them',
      'b.png is the same file as a.jpg: remove one of them',
    ]);
  });

  it('counts tokens that a caption has at least', async () => {
    const doubtsOn = async (caption: string) => {
      await put('a.png', await photo(300, 300));
      await put('a.txt', caption);
      return (await inspectDirectory(directory, OPTIONS)).pictures[0]?.doubts;
    };
    assert.deepEqual(await doubtsOn('word '.repeat(75)), []);
    const expected = ['has a caption of at least 76 tokens, of which the text encoder reads 75'];
    assert.deepEqual(await doubtsOn(`${'word '.repeat(75)}.`), expected);
    assert.deepEqual(await doubtsOn("it's, ".repeat(25) + 'x'), expected);
  });

  it('names pipes and devices, which would never come to an end, among pictures and captions', async () => {
    const others = await mkdtemp(path.join(directory, 'others-'));
    await symlink('/dev/zero', path.join(others, 'a.png'));
    execFileSync('mkfifo', [path.join(others, 'b.jpg'), path.join(others, 'c.txt')]);
    await writeFile(path.join(others, 'c.png'), await photo(300, 300));
    const { pictures } = await inspectDirectory(others, OPTIONS);
    assert.deepEqual(
      pictures.map(({ faults }) => faults),
      [['is not a regular file'], ['is not a regular file'], ['has a caption that is not a regular file']],
    );
  });

  it('names a folder that is called like a picture', async () => {
    await mkdir(path.join(directory, 'b.png'));
    const { pictures } = await inspectDirectory(directory, OPTIONS);
    assert.match(pictures[0]?.faults.join() ?? '', /^is a directory, not a file$/);
  });
});
