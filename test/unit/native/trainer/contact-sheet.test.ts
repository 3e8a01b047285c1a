import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import sharp from 'sharp';
import { composeSheet, pictureSize, rowsOf } from '../../../../native/trainer/contact-sheet.ts';

describe('contact sheet', () => {
  it('takes a caption of the job after the other, and its trigger word', () => {
    const prompts = ['{caption}', 'a house, {trigger}', '{caption}', '{caption} and {caption}', '{caption}'];
    const job = { captions: ['a hill', 'a lake', 'a hill', 'costs $& more'], triggerWord: 'inkwash' };
    const rows = rowsOf(prompts, 5, '/sheets', job);
    assert.deepEqual(
      rows.map(({ prompt }) => prompt),
      ['a hill', 'a house, inkwash', 'a lake', 'costs $& more and a hill', 'a lake'],
    );
    assert.deepEqual(
      rows.map(({ seed }) => seed),
      [5, 6, 7, 8, 9],
    );
    assert.equal(new Set(rows.flatMap(({ baseFile, currentFile }) => [baseFile, currentFile])).size, 10);
    assert.equal(rowsOf(['by {trigger}'], 0, '/sheets', { captions: [], triggerWord: null })[0]?.prompt, 'by ');
  });

  it('shows squares, and of a job with aspect buckets the size that most pictures have', () => {
    const [square, wide, tall] = [size(512, 512), size(640, 384), size(384, 640)];
    assert.deepEqual(pictureSize([square, square], null), square);
    assert.deepEqual(pictureSize([square, square], 256), size(256, 256));
    // Never larger than they are trained in.
    assert.deepEqual(pictureSize([size(256, 256)], 384), size(256, 256));
    assert.deepEqual(pictureSize([wide], 512), wide);
    // A side that no bucket has.
    assert.deepEqual(pictureSize([size(72, 72)], 40), size(40, 40));
    assert.deepEqual(pictureSize([square, wide, tall, wide], null), wide);
    assert.deepEqual(pictureSize([square, wide, tall, wide], 256), size(320, 192));
    assert.deepEqual(pictureSize([wide, tall], null), pictureSize([tall, wide], null));
  });

  describe('as a picture', () => {
    let directory: string;
    let file: string;

    beforeEach(() => {
      directory = mkdtempSync(path.join(tmpdir(), 'contact-sheet-'));
      file = path.join(directory, 'sheet.png');
    });
    afterEach(() => rmSync(directory, { recursive: true }));

    const SHADES = [10, 60, 110, 160];
    const PICTURE = size(160, 80);

    /** Composes a sheet of two rows of plain pictures; tells its pixels. */
    async function compose(title: string, prompts: string[]) {
      const rows = rowsOf(prompts, 0, directory, { captions: [], triggerWord: null });
      for (const [index, picture] of rows.flatMap((row) => [row.baseFile, row.currentFile]).entries()) {
        const shade = SHADES[index] ?? 0;
        const background = { r: shade, g: shade, b: shade };
        await sharp({ create: { width: 160, height: 80, channels: 3, background } })
          .png()
          .toFile(picture);
      }
      await composeSheet(rows, PICTURE, title, file);
      const { data, info } = await sharp(file).raw().toBuffer({ resolveWithObject: true });
      const at = (x: number, y: number) => data[(y * info.width + x) * 3] ?? NaN;
      /** How many pixels of an area are neither white nor of a picture. */
      const ink = (left: number, right: number, top: number, bottom: number) => {
        let count = 0;
        for (let y = top; y < bottom; y++) for (let x = left; x < right; x++) if (at(x, y) < 200) count++;
        return count;
      };
      return { ...info, at, ink };
    }

    it('has the base model on the left, the job on the right, and a row for each prompt', async () => {
      const { width, height, channels, at } = await compose('epoch 3/9', ['a', 'b']);
      assert.deepEqual([width, height, channels], [2 * 160 + 24, 8 + 14 + 2 * (14 + 80 + 8), 3]);
      const tops = [8 + 14 + 14, 8 + 14 + 14 + 102];
      const shades = tops.flatMap((top) => [8, 176].map((left) => at(left, top)));
      assert.deepEqual(shades, SHADES);
      const ends = tops.flatMap((top) => [167, 335].map((right) => at(right, top + 79)));
      assert.deepEqual(ends, SHADES);
      assert.deepEqual([at(171, 60), at(340, 60), at(60, height - 4)], [255, 255, 255]);
      assert.deepEqual(
        readdirSync(directory).filter((name) => name.endsWith('.part')),
        [],
      );
    });

    it('has the epoch as a title and prompts above their rows, cut to the width', async () => {
      const long = 'a hill in spring, '.repeat(20);
      const { width, ink } = await compose('epoch 3/9', ['a lake', long]);
      assert.ok(ink(8, 168, 8, 18) > 30, 'base model');
      assert.ok(ink(176, 336, 8, 18) > 30, 'the epoch');
      const [short, cut] = [ink(8, width, 23, 34), ink(8, width, 125, 136)];
      assert.ok(short > 20 && cut > 4 * short, `${short} and ${cut}`);
      assert.equal(ink(width - 8, width, 0, 136), 0, 'the margin');
      const other = await compose('epoch 4/9', ['a lake', '']);
      assert.notEqual(other.ink(176, 336, 8, 18), ink(176, 336, 8, 18));
      assert.ok(other.ink(8, width, 125, 136) > 0, 'no prompt');
    });

    it('takes prompts in any letters', async () => {
      await compose('epoch 1/1', ['수묵화 <b>&amp;</b>\n\u0000', '\u{1f600}'.repeat(300)]);
    });

    it('leaves nothing behind where it fails', async () => {
      const rows = rowsOf(['a'], 0, directory, { captions: [], triggerWord: null });
      await assert.rejects(composeSheet(rows, PICTURE, 'epoch 1/1', file));
      assert.deepEqual(readdirSync(directory), []);
    });
  });
});

function size(widthPx: number, heightPx: number) {
  return { widthPx, heightPx };
}
