/** One letter: SVG path on a grid with the ascender at 0, the baseline at 6, and how far the next letter is. */
type Glyph = readonly [path: string, advance: number];

/**
 * Letters as strokes. SVG text is drawn with the machine's fonts, and a machine without any draws nothing at all: these
 * look the same everywhere.
 */
const GLYPHS: Readonly<Record<string, Glyph>> = {
  '0': ['M2 0C.5 0 0 1.5 0 3s.5 3 2 3 2-1.5 2-3-.5-3-2-3z', 5],
  '1': ['M.5 1.2L2 0v6', 5],
  '2': ['M.2 1.6C.2.6 1 0 2 0s1.8.7 1.8 1.7C3.8 3 1.5 4 .2 6H4', 5],
  '3': [
    'M.3.9C.7.3 1.3 0 2 0c1.1 0 1.8.6 1.8 1.5S3.1 2.9 2 2.9C3.2 2.9 4 3.5 4 4.4 4 5.4 3.2 6 2 6 1.1 6 .4 5.6 0 5',
    5,
  ],
  '4': ['M3 6V0L0 4.2h4', 5],
  '5': ['M3.6 0H.8L.5 2.7C.9 2.4 1.4 2.2 2 2.2 3.2 2.2 4 3 4 4.1S3.2 6 2 6C1.1 6 .4 5.6 0 5', 5],
  '6': ['M3.5.6C3.1.2 2.6 0 2.1 0 .8 0 0 1.3 0 3.6 0 5.2.8 6 2 6s2-.8 2-1.9S3.2 2.3 2.1 2.3C1 2.3.1 3 0 4', 5],
  '7': ['M0 0h4L1.5 6', 5],
  '8': [
    'M2 2.8C1 2.8.3 2.2.3 1.4S1 0 2 0s1.7.6 1.7 1.4S3 2.8 2 2.8C.8 2.8 0 3.5 0 4.4S.8 6 2 6s2-.7 2-1.6S3.2 2.8 2 2.8z',
    5,
  ],
  '9': ['M.5 5.4C.9 5.8 1.4 6 1.9 6 3.2 6 4 4.7 4 2.4 4 .8 3.2 0 2 0S0 .8 0 1.9.8 3.7 1.9 3.7C3 3.7 3.9 3 4 2', 5],
  '.': ['M.8 5.9v.1', 1.8],
  ',': ['M.9 5.8L.5 7', 1.8],
  '-': ['M.5 3.5h3', 4.5],
  a: [
    'M.5 2.6C1 2.2 1.5 2 2 2c1 0 1.6.5 1.6 1.5V6M3.6 3.7C2 3.7.2 3.8.2 5 .2 5.7.8 6 1.5 6 2.5 6 3.6 5.4 3.6 4.4',
    4.8,
  ],
  c: ['M3.6 2.7C3.2 2.2 2.7 2 2.1 2 .9 2 .2 2.8.2 4s.7 2 1.9 2c.6 0 1.1-.2 1.5-.7', 4.6],
  d: ['M3.6 0v6M3.6 4C3.6 2.8 2.9 2 1.9 2S.2 2.8.2 4s.7 2 1.7 2 1.7-.8 1.7-2', 4.8],
  e: ['M.3 3.9h3.4C3.7 2.8 3.1 2 2 2S.2 2.8.2 4s.7 2 1.9 2c.6 0 1.1-.2 1.5-.6', 4.8],
  g: [
    'M3.6 2v4.4C3.6 7.4 3 8 2 8 1.4 8 .9 7.8.5 7.5M3.6 4c0-1.2-.7-2-1.7-2S.2 2.8.2 4 .9 5.9 1.9 5.9 3.6 5.2 3.6 4',
    4.8,
  ],
  h: ['M.4 0v6M.4 3.6C.4 2.6 1.1 2 2 2c1 0 1.5.6 1.5 1.6V6', 4.6],
  i: ['M.8 2v4M.8 .5v.1', 1.9],
  l: ['M.8 0v6', 1.9],
  m: ['M.3 2v4M.3 3.4C.3 2.6.8 2 1.5 2S2.6 2.5 2.6 3.3V6M2.6 3.4C2.6 2.6 3.1 2 3.8 2S4.9 2.5 4.9 3.3V6', 6.1],
  n: ['M.4 2v4M.4 3.6C.4 2.6 1.1 2 2 2c1 0 1.5.6 1.5 1.6V6', 4.6],
  o: ['M2 2C.9 2 .2 2.8.2 4s.7 2 1.8 2 1.8-.8 1.8-2S3.1 2 2 2z', 4.9],
  p: ['M.4 2v6M.4 4C.4 2.8 1.1 2 2.1 2s1.7.8 1.7 2-.7 2-1.7 2S.4 5.2.4 4', 4.9],
  r: ['M.5 2v4M.5 4C.5 2.8 1.2 2.1 2.4 2.1', 3.2],
  s: ['M3.3 2.5C2.9 2.2 2.4 2 1.8 2 1 2 .4 2.4.4 3c0 1.4 3.1.6 3.1 2 0 .6-.7 1-1.6 1C1.2 6 .6 5.8.2 5.4', 4.5],
  t: ['M1.4.6v4.2C1.4 5.6 1.8 6 2.6 6M.3 2h2.4', 3.6],
  v: ['M.2 2l1.6 4 1.6-4', 4.2],
  ' ': ['', 3],
};

/** Height of the grid's ascender in grid units. */
const ASCENDER = 6;

/** Where and how {@link strokeText} draws. */
export interface StrokeTextOptions {
  /** Of the baseline's start, middle or end, as `anchor` says. */
  x: number;
  y: number;
  /** Height of a digit. */
  heightPx: number;
  color: string;
  anchor?: 'start' | 'middle' | 'end';
  /** Degrees, clockwise; default 0. */
  rotation?: number;
}

/**
 * Draws text as an SVG element without any font.
 *
 * @param text - digits, `.`, `,`, `-`, blanks and the small letters of our charts
 * @param options - place, size and colour
 * @throws RangeError for a letter that has no strokes
 */
export function strokeText(text: string, options: StrokeTextOptions): string {
  const scale = options.heightPx / ASCENDER;
  let advance = 0;
  const letters = [...text].map((letter) => {
    const glyph = GLYPHS[letter];
    if (glyph === undefined) throw new RangeError(`No strokes for the letter ${JSON.stringify(letter)}.`);
    const [path, width] = glyph;
    const element = path === '' ? '' : `<path transform="translate(${advance.toFixed(2)} 0)" d="${path}"/>`;
    advance += width;
    return element;
  });
  const shift = { start: 0, middle: -advance / 2, end: -advance }[options.anchor ?? 'start'];
  const place = `translate(${options.x} ${options.y}) rotate(${options.rotation ?? 0}) scale(${scale})`;
  return (
    `<g transform="${place} translate(${shift} ${-ASCENDER})" fill="none" stroke="${options.color}" ` +
    `stroke-width="0.75" stroke-linecap="round" stroke-linejoin="round">${letters.join('')}</g>`
  );
}
