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
  ':': ['M.8 2.6v.1M.8 5.9v.1', 1.8],
  ';': ['M.9 2.6v.1M.9 5.8L.5 7', 1.8],
  '!': ['M.8 0v4M.8 5.9v.1', 1.9],
  '?': ['M.3 1C.6.3 1.2 0 1.9 0c1 0 1.7.6 1.7 1.5C3.6 2.8 1.9 2.8 1.9 4.1M1.9 5.9v.1', 4.3],
  "'": ['M.8 0v1.4', 1.8],
  '"': ['M.6 0v1.4M1.9 0v1.4', 2.8],
  '(': ['M1.8-.6C.3 1.6.3 5 1.8 7.2', 2.4],
  ')': ['M.4-.6C1.9 1.6 1.9 5 .4 7.2', 2.4],
  '[': ['M1.7-.6H.6v7.8h1.1', 2.3],
  ']': ['M.4-.6h1.1v7.8H.4', 2.3],
  '{': ['M2-.6C1-.6 1.1 0 1.1 1.2S1 3.3.3 3.3c.7 0 .8.9.8 2.1S1 7.2 2 7.2', 2.6],
  '}': ['M.3-.6C1.3-.6 1.2 0 1.2 1.2S1.3 3.3 2 3.3c-.7 0-.8.9-.8 2.1s.1 1.8-.9 1.8', 2.6],
  '<': ['M3.6 1.4L.4 3.5l3.2 2.1', 4.4],
  '>': ['M.4 1.4l3.2 2.1L.4 5.6', 4.4],
  '=': ['M.4 2.6h3.2M.4 4.4h3.2', 4.4],
  '+': ['M.4 3.5h3.2M2 1.9v3.2', 4.4],
  '*': ['M1.5.2v2.6M.4.8l2.2 1.4M2.6.8L.4 2.2', 3.4],
  '/': ['M3-.4L.3 6.8', 3.6],
  '\\': ['M.3-.4L3 6.8', 3.6],
  '|': ['M.8-.6v7.8', 2],
  _: ['M.1 7h3.8', 4.4],
  '#': ['M1.5.6L.9 5.6M3.3.6L2.7 5.6M.3 2.2h3.7M.1 4.1h3.7', 4.6],
  '%': ['M4.6 0L.9 6M1.2 0a1.1 1.3 0 1 0 .1 0zM4.3 3.4a1.1 1.3 0 1 0 .1 0z', 6],
  '&': ['M4.4 6L1.4 2C.9 1.3 1.2 0 2.2 0s1.3 1.3.5 2C1.7 2.9.3 3.2.3 4.5.3 5.4 1 6 1.9 6 3.1 6 3.9 5 4.1 3.6', 5.1],
  $: [
    'M3.7 1.3C3.3.8 2.8.6 2 .6 1.1.6.5 1 .5 1.7c0 1.8 3.4.8 3.4 2.7 0 .7-.7 1.2-1.9 1.2-.8 0-1.4-.3-1.8-.8M2-.2v6.6',
    4.7,
  ],
  '@': [
    'M4.2 2.2v2c0 1.2 1.5 1 1.5-1C5.7 1.2 4.6 0 3 0S.3 1.2.3 3.1.4 6.4 3.2 6.4M4.2 3.2c0-.8-.5-1.2-1.1-1.2S1.9 2.5 1.9 3.3s.5 1.2 1.1 1.2 1.2-.5 1.2-1.3',
    6.4,
  ],
  '~': ['M.4 3.8C.8 3 1.4 3 2 3.4s1.2.5 1.6-.3', 4.4],
  '…': ['M.8 5.9v.1M2.6 5.9v.1M4.4 5.9v.1', 5.4],
  a: [
    'M.5 2.6C1 2.2 1.5 2 2 2c1 0 1.6.5 1.6 1.5V6M3.6 3.7C2 3.7.2 3.8.2 5 .2 5.7.8 6 1.5 6 2.5 6 3.6 5.4 3.6 4.4',
    4.8,
  ],
  b: ['M.4 0v6M.4 4C.4 2.8 1.1 2 2.1 2s1.7.8 1.7 2-.7 2-1.7 2S.4 5.2.4 4', 4.9],
  c: ['M3.6 2.7C3.2 2.2 2.7 2 2.1 2 .9 2 .2 2.8.2 4s.7 2 1.9 2c.6 0 1.1-.2 1.5-.7', 4.6],
  d: ['M3.6 0v6M3.6 4C3.6 2.8 2.9 2 1.9 2S.2 2.8.2 4s.7 2 1.7 2 1.7-.8 1.7-2', 4.8],
  e: ['M.3 3.9h3.4C3.7 2.8 3.1 2 2 2S.2 2.8.2 4s.7 2 1.9 2c.6 0 1.1-.2 1.5-.6', 4.8],
  f: ['M2.7.1C1.7-.2 1.1.3 1.1 1.3V6M.2 2h2.3', 3.1],
  g: [
    'M3.6 2v4.4C3.6 7.4 3 8 2 8 1.4 8 .9 7.8.5 7.5M3.6 4c0-1.2-.7-2-1.7-2S.2 2.8.2 4 .9 5.9 1.9 5.9 3.6 5.2 3.6 4',
    4.8,
  ],
  h: ['M.4 0v6M.4 3.6C.4 2.6 1.1 2 2 2c1 0 1.5.6 1.5 1.6V6', 4.6],
  i: ['M.8 2v4M.8 .5v.1', 1.9],
  j: ['M1.2 2v4.8C1.2 7.6.8 8 0 8M1.2 .5v.1', 2.3],
  k: ['M.4 0v6M3.4 2L.4 4.6M1.6 3.6L3.6 6', 4.2],
  l: ['M.8 0v6', 1.9],
  m: ['M.3 2v4M.3 3.4C.3 2.6.8 2 1.5 2S2.6 2.5 2.6 3.3V6M2.6 3.4C2.6 2.6 3.1 2 3.8 2S4.9 2.5 4.9 3.3V6', 6.1],
  n: ['M.4 2v4M.4 3.6C.4 2.6 1.1 2 2 2c1 0 1.5.6 1.5 1.6V6', 4.6],
  o: ['M2 2C.9 2 .2 2.8.2 4s.7 2 1.8 2 1.8-.8 1.8-2S3.1 2 2 2z', 4.9],
  p: ['M.4 2v6M.4 4C.4 2.8 1.1 2 2.1 2s1.7.8 1.7 2-.7 2-1.7 2S.4 5.2.4 4', 4.9],
  q: ['M3.6 2v6M3.6 4C3.6 2.8 2.9 2 1.9 2S.2 2.8.2 4s.7 2 1.7 2 1.7-.8 1.7-2', 4.8],
  r: ['M.5 2v4M.5 4C.5 2.8 1.2 2.1 2.4 2.1', 3.2],
  s: ['M3.3 2.5C2.9 2.2 2.4 2 1.8 2 1 2 .4 2.4.4 3c0 1.4 3.1.6 3.1 2 0 .6-.7 1-1.6 1C1.2 6 .6 5.8.2 5.4', 4.5],
  t: ['M1.4.6v4.2C1.4 5.6 1.8 6 2.6 6M.3 2h2.4', 3.6],
  u: ['M.4 2v2.4C.4 5.4.9 6 1.9 6c.9 0 1.6-.6 1.6-1.6M3.5 2v4', 4.6],
  v: ['M.2 2l1.6 4 1.6-4', 4.2],
  w: ['M.2 2l1.3 4 1.3-4 1.3 4 1.3-4', 6],
  x: ['M.3 2l3 4M3.3 2l-3 4', 4.1],
  y: ['M.2 2l1.7 4M3.6 2L1.9 6C1.5 7.2 1.1 8 .2 8', 4.2],
  z: ['M.4 2h2.9L.3 6h3.1', 4.2],
  A: ['M.1 6L2.3 0l2.2 6M.9 4h2.8', 5.2],
  B: ['M.5 0v6h1.8C3.5 6 4.2 5.4 4.2 4.4S3.5 2.9 2.3 2.9H.5M2.3 2.9C3.2 2.9 3.8 2.3 3.8 1.4S3.2 0 2.1 0H.5', 5.1],
  C: ['M4.3 1C3.8.4 3.2 0 2.4 0 1 0 .2 1.2.2 3s.8 3 2.2 3c.8 0 1.4-.4 1.9-1', 5.1],
  D: ['M.5 0v6h1.5C3.5 6 4.4 4.9 4.4 3S3.5 0 2 0z', 5.4],
  E: ['M3.8 0H.5v6h3.4M.5 2.9h2.8', 4.7],
  F: ['M3.7 0H.5v6M.5 2.9h2.7', 4.4],
  G: ['M4.3 1C3.8.4 3.2 0 2.4 0 1 0 .2 1.2.2 3s.8 3 2.2 3c.9 0 1.6-.4 2-1V3.2H2.7', 5.4],
  H: ['M.5 0v6M4.3 0v6M.5 2.9h3.8', 5.6],
  I: ['M.8 0v6', 2.1],
  J: ['M2.6 0v4.4C2.6 5.5 2.1 6 1.3 6 .7 6 .3 5.7.1 5.1', 3.7],
  K: ['M.5 0v6M4 0L.5 3.6M1.8 2.4L4.2 6', 4.9],
  L: ['M.5 0v6h3.2', 4.3],
  M: ['M.5 6V0l2.2 4L4.9 0v6', 6.2],
  N: ['M.5 6V0l3.8 6V0', 5.6],
  O: ['M2.5 0C1 0 .2 1.2.2 3s.8 3 2.3 3 2.3-1.2 2.3-3S4 0 2.5 0z', 5.8],
  P: ['M.5 6V0h1.8C3.5 0 4.1.6 4.1 1.7S3.5 3.4 2.3 3.4H.5', 4.9],
  Q: ['M2.5 0C1 0 .2 1.2.2 3s.8 3 2.3 3 2.3-1.2 2.3-3S4 0 2.5 0zM3 4.6l1.8 1.9', 5.8],
  R: ['M.5 6V0h1.8C3.5 0 4.1.6 4.1 1.7S3.5 3.4 2.3 3.4H.5M2.5 3.4L4.2 6', 5],
  S: ['M3.8.9C3.4.3 2.8 0 2 0 1 0 .4.6.4 1.4c0 2.2 3.6 1 3.6 3.2C4 5.4 3.3 6 2.1 6 1.3 6 .6 5.7.2 5.1', 4.9],
  T: ['M.1 0h4.4M2.3 0v6', 4.8],
  U: ['M.5 0v3.8C.5 5.2 1.1 6 2.4 6s1.9-.8 1.9-2.2V0', 5.6],
  V: ['M.1 0l2.2 6 2.2-6', 4.9],
  W: ['M.1 0l1.5 6L3.1 0l1.5 6L6.1 0', 6.7],
  X: ['M.3 0l3.8 6M4.1 0L.3 6', 4.9],
  Y: ['M.1 0l2.1 3.2V6M4.3 0L2.2 3.2', 4.8],
  Z: ['M.4 0h3.6L.3 6h3.8', 4.8],
  ' ': ['', 3],
  '□': ['M.5 .5h3.4v5.5H.5z', 4.9],
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

/** What stands for letters that have no strokes. */
const UNKNOWN = '□';

/** What stands for letters that have no room. */
const ELLIPSIS = '…';

/** Letters that are drawn as others. */
const ALIKE: Readonly<Record<string, string>> = {
  ...{ '‘': "'", '’': "'", '`': "'", '´': "'", '“': '"', '”': '"', '„': '"', '«': '"', '»': '"' },
  ...{ '‐': '-', '‑': '-', '–': '-', '—': '-', '·': '.', '×': 'x', '^': "'" },
  ...{ ß: 'ss', ø: 'o', Ø: 'O', æ: 'ae', Æ: 'AE', œ: 'oe', Œ: 'OE', ł: 'l', Ł: 'L', đ: 'd', Đ: 'D', ı: 'i' },
};

/**
 * Any text in letters that {@link strokeText} can draw: without accents, on one line, a box for each letter of another
 * script.
 *
 * @param text - of a stranger
 */
export function inStrokes(text: string): string {
  return [...text.normalize('NFC').replace(/\s+/gu, ' ').trim()]
    .map((letter) => {
      const bare = letter.normalize('NFKD').replace(/\p{M}+/gu, '');
      return [...(ALIKE[letter] ?? bare)].every((part) => part in GLYPHS) ? (ALIKE[letter] ?? bare) : UNKNOWN;
    })
    .join('');
}

/**
 * How wide {@link strokeText} draws a text.
 *
 * @param text - of letters that have strokes
 * @param heightPx - of a digit
 */
export function strokeTextWidthPx(text: string, heightPx: number): number {
  return ([...text].reduce((sum, letter) => sum + glyphOf(letter)[1], 0) * heightPx) / ASCENDER;
}

/**
 * As much of a text as fits, with an ellipsis where something is left out.
 *
 * @param text - of letters that have strokes
 * @param heightPx - of a digit
 * @param widthPx - room for it
 */
export function cutToWidth(text: string, heightPx: number, widthPx: number): string {
  if (strokeTextWidthPx(text, heightPx) <= widthPx) return text;
  let roomPx = widthPx - strokeTextWidthPx(ELLIPSIS, heightPx);
  let kept = '';
  for (const letter of text) {
    roomPx -= strokeTextWidthPx(letter, heightPx);
    if (roomPx < 0) break;
    kept += letter;
  }
  return kept.trimEnd() + ELLIPSIS;
}

function glyphOf(letter: string): Glyph {
  const glyph = GLYPHS[letter];
  if (glyph === undefined) throw new RangeError(`No strokes for the letter ${JSON.stringify(letter)}.`);
  return glyph;
}

/**
 * Draws text as an SVG element without any font.
 *
 * @param text - of ASCII letters, digits and signs; see {@link inStrokes} for any other
 * @param options - place, size and colour
 * @throws RangeError for a letter that has no strokes
 */
export function strokeText(text: string, options: StrokeTextOptions): string {
  const scale = options.heightPx / ASCENDER;
  let advance = 0;
  const letters = [...text].map((letter) => {
    const [path, width] = glyphOf(letter);
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
