import assert from 'node:assert/strict';
import { pictureNames } from '../../../activities/picture-names.ts';
import { parseImageUri } from '../../../common/image-uri.ts';

const rules = { endpoint: null, fileUriRoot: null };
const namesOf = (...uris: string[]) => pictureNames(uris.map((uri) => parseImageUri(uri, rules)));

describe('pictureNames', () => {
  it('cuts names that no file system takes, and keeps them apart', () => {
    const long = '그림'.repeat(60);
    const names = namesOf(`s3://art/x/${long}1.jpg`, `s3://art/x/${long}2.jpg`, 's3://art/x/a.png');
    assert.equal(new Set(names).size, 3);
    for (const name of names) assert.ok(Buffer.byteLength(name) <= 180, name);
    assert.match(names[0] ?? '', /^그림.*-[0-9a-f]{16}\.jpg$/);
    assert.equal(names[2], 'a.png');
  });

  it("keeps the pictures' own names, so that they sort as in a directory", () => {
    assert.deepEqual(namesOf('s3://art/x/b.png', 's3://art/x/a.jpg'), ['b.png', 'a.jpg']);
  });

  it('keeps names that share a stem and, being from one folder, a caption', () => {
    assert.deepEqual(namesOf('s3://art/x/a.png', 's3://art/x/a.jpg'), ['a.png', 'a.jpg']);
  });

  it('numbers pictures of the same name', () => {
    assert.deepEqual(namesOf('s3://art/x/a.png', 's3://art/y/a.png'), ['1-a.png', '2-a.png']);
  });

  it('numbers pictures whose captions would collide', () => {
    assert.deepEqual(namesOf('s3://art/x/a.png', 's3://art/y/a.jpg'), ['1-a.png', '2-a.jpg']);
  });

  it('numbers so that the order of the message is kept', () => {
    const uris = Array.from({ length: 11 }, (_, i) => `s3://art/${i}/a.png`);
    const names = namesOf(...uris);
    assert.deepEqual([...names].sort(), names);
  });

  it('gives a name without extension one that is found again', () => {
    assert.deepEqual(namesOf('https://cdn.example/art/12345?sig=abc'), ['12345.png']);
  });

  it('never leaves the directory and never hides a file', () => {
    assert.deepEqual(namesOf('https://cdn.example/%2e%2e%2fa.png', 's3://art/.hidden.png'), ['a.png', 'hidden.png']);
  });
});
