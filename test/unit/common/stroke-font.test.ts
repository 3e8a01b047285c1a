import assert from 'node:assert/strict';
import { cutToWidth, inStrokes, strokeText, strokeTextWidthPx } from '../../../common/stroke-font.ts';
import { MAX_CAPTION_BYTES } from '../../../native/trainer/caption.ts';

const LOOK = { x: 0, y: 0, heightPx: 12, color: '#000' };

describe('stroke font', () => {
  it('has every letter of ASCII', () => {
    const ascii = Array.from({ length: 0x7f - 0x20 }, (_, index) => String.fromCharCode(0x20 + index));
    assert.deepEqual(
      ascii.filter((letter) => inStrokes(`x${letter}x`) === 'x□x'),
      [],
    );
    for (const letter of ascii) strokeText(inStrokes(`x${letter}x`), LOOK);
  });

  it('draws other letters without their accents, by their like, or as a box', () => {
    assert.equal(inStrokes('  Ça  coûte\n“très” cher — ﬁn '), 'Ca coute "tres" cher - fin');
    assert.equal(inStrokes('ŁØß'), 'LOss');
    assert.equal(inStrokes('수묵화 Ж 😀'), '□□□ □ □');
    assert.equal(inStrokes(''), '');
    assert.equal(inStrokes('a\u0000b'), 'a□b');
  });

  it('cuts a text that is too long, and no other', () => {
    const text = 'a hill in spring';
    const widthPx = strokeTextWidthPx(text, 12);
    assert.equal(cutToWidth(text, 12, widthPx), text);
    const cut = cutToWidth(text, 12, widthPx - 1);
    assert.match(cut, /^a hill in spr.*…$/);
    assert.ok(strokeTextWidthPx(cut, 12) <= widthPx - 1);
    assert.equal(cutToWidth(text, 12, 0), '…');
    assert.ok(strokeTextWidthPx(text, 24) === 2 * widthPx);
  });

  it('cuts the longest caption that there may be within a moment', () => {
    const caption = 'a hill, '.repeat(MAX_CAPTION_BYTES / 8);
    assert.match(cutToWidth(inStrokes(caption), 12, 600), /^a hill, a hill.{9,90}…$/);
  });
});
