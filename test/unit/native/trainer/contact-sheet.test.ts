import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import sharp from 'sharp';
import { composeSheet, rowsOf } from '../../../../native/trainer/contact-sheet.ts';

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

  it('has the base model on the left, the job on the right, and a row for each prompt', async () => {
    const directory = mkdtempSync(path.join(tmpdir(), 'contact-sheet-'));
    try {
      const rows = rowsOf(['a', 'b'], 0, directory, { captions: [], triggerWord: null });
      const files = rows.flatMap(({ baseFile, currentFile }) => [baseFile, currentFile]);
      const shades = [10, 60, 110, 160];
      for (const [index, file] of files.entries()) {
        const shade = shades[index] ?? 0;
        const background = { r: shade, g: shade, b: shade };
        await sharp({ create: { width: 16, height: 16, channels: 3, background } })
          .png()
          .toFile(file);
      }
      const file = path.join(directory, 'sheet.png');
      await composeSheet(rows, 16, file);
      const { data, info } = await sharp(file).raw().toBuffer({ resolveWithObject: true });
      assert.deepEqual([info.width, info.height, info.channels], [40, 40, 3]);
      const at = (x: number, y: number) => data[(y * info.width + x) * 3];
      assert.deepEqual([at(8, 8), at(32, 8), at(8, 32), at(32, 32), at(20, 20)], [...shades, 255]);
      assert.deepEqual(
        readdirSync(directory).filter((name) => name.endsWith('.part')),
        [],
      );
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
