import sharp from 'sharp';

/** Pictures that test/reference/resample_golden.py draws by the same formulas in integers. */
export type Pattern = 'noise' | 'zones' | 'shapes';

const VALUES: Record<Exclude<Pattern, 'noise'>, (x: number, y: number, channel: number) => number> = {
  zones: (x, y, c) => Math.floor((x * x + y * y * (1 + c)) / 64) % 256,
  shapes: (x, y, c) => ((Math.floor(x / 37) + Math.floor(y / 23) + c) % 2) * 200 + (Math.floor((x * 3 + y) / 40) % 50),
};

/** A PNG of a pattern. */
export async function patternPng(pattern: Pattern, widthPx: number, heightPx: number): Promise<Buffer> {
  const pixels = Buffer.alloc(widthPx * heightPx * 3);
  let state = 1;
  for (let i = 0; i < pixels.length; i++) {
    if (pattern === 'noise') {
      state = (state * 48271) % 2147483647;
      pixels[i] = (state >> 8) & 255;
    } else {
      const place = Math.floor(i / 3);
      pixels[i] = VALUES[pattern](place % widthPx, Math.floor(place / widthPx), i % 3);
    }
  }
  return sharp(pixels, { raw: { width: widthPx, height: heightPx, channels: 3 } })
    .png()
    .toBuffer();
}
