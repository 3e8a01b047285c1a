import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import sharp from 'sharp';

const SIDE_PX = 256;

/** As many pictures as a style needs at least. */
export const PICTURE_COUNT = 10;

/** Writes small pictures that all differ, every second one with a caption; equal calls write equal files. */
export async function writePictures(directory: string): Promise<string[]> {
  mkdirSync(directory, { recursive: true });
  const names: string[] = [];
  for (let index = 0; index < PICTURE_COUNT; index++) {
    const name = `picture-${index}.${index % 3 === 0 ? 'jpg' : 'png'}`;
    const pixels = Buffer.alloc(SIDE_PX * SIDE_PX * 3);
    for (let i = 0; i < pixels.length; i++) pixels[i] = (i * (index + 3) + Math.floor(i / 769) * 7) % 256;
    const image = sharp(pixels, { raw: { width: SIDE_PX, height: SIDE_PX, channels: 3 } });
    writeFileSync(path.join(directory, name), await (name.endsWith('jpg') ? image.jpeg() : image.png()).toBuffer());
    if (index % 2 === 0) writeFileSync(path.join(directory, `picture-${index}.txt`), `stripes number ${index}`);
    names.push(name);
  }
  return names;
}
