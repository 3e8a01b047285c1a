import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { captionFile, readCaption, withTriggerWord } from '../../../../native/trainer/caption.ts';

describe('captionFile', () => {
  it('has the stem of its picture', () => {
    assert.equal(captionFile('a.b.jpeg'), 'a.b.txt');
  });
});

describe('readCaption', () => {
  let directory: string;
  before(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'brushwork-caption-'));
  });
  after(() => rmSync(directory, { recursive: true }));

  function read(bytes: Uint8Array): Promise<string | null> {
    writeFileSync(path.join(directory, 'a.txt'), bytes);
    return readCaption(path.join(directory, 'a.txt'));
  }

  it('refuses UTF-16 without a byte order mark, which is UTF-8 full of zeros', async () => {
    await assert.rejects(
      read(Buffer.from('a red cat', 'utf16le')),
      /has a caption with zero bytes: save it as UTF-8 text/,
    );
    assert.equal(await read(Buffer.from('\ufeffa red cat', 'utf16le')), 'a red cat');
    assert.equal(await read(Buffer.from('a\tred\r\ncat\n')), 'a\tred\r\ncat');
  });
});

describe('withTriggerWord', () => {
  const cases: [why: string, caption: string, triggerWord: string | null, expected: string][] = [
    ['puts it in front', 'a red house', 'inkwash', 'inkwash, a red house'],
    ['leaves a caption that has it', 'a red house, inkwash', 'inkwash', 'a red house, inkwash'],
    ['in capitals, too', 'Inkwash house', 'inkWASH', 'Inkwash house'],
    ['is not content with a part of a word', 'drinking tea', 'ink', 'ink, drinking tea'],
    ['nor with a number behind it', 'ink2 house', 'ink', 'ink, ink2 house'],
    ['takes punctuation for the end of a word', '(ink) house', 'ink', '(ink) house'],
    ['may be several words', 'a house in Old Ink style', 'old ink style', 'a house in Old Ink style'],
    ['may hold what means something in patterns', 'a house', 'c++ [v.2]', 'c++ [v.2], a house'],
    ['finds such a one again', 'by c++ [v.2], a house', 'c++ [v.2]', 'by c++ [v.2], a house'],
    ['does not take it for a pattern', 'by cv2', 'c.2', 'c.2, by cv2'],
    ['knows letters of all scripts', '먹그림집', '먹그림', '먹그림, 먹그림집'],
    ['stands alone where there is no caption', '', 'inkwash', 'inkwash'],
    ['is nothing by default', 'a red house', null, 'a red house'],
  ];
  for (const [why, caption, triggerWord, expected] of cases) {
    it(why, () => assert.equal(withTriggerWord(caption, triggerWord), expected));
  }
});
