import assert from 'node:assert/strict';
import { Readable } from 'node:stream';
import { collect, writeBody } from '../../../worker/write-stream.ts';

const LIMITS = { name: 'the body', announcedBytes: 10, maxBytes: 5 };

describe('a body that is announced longer than its cap', () => {
  const readers: Record<string, (body: Readable) => Promise<unknown>> = {
    collect: (body) => collect(body, LIMITS),
    writeBody: (body) => writeBody(body, '/nowhere/file', LIMITS),
  };
  for (const [name, read] of Object.entries(readers)) {
    it(`gives its connection back, by ${name}`, async () => {
      const body = Readable.from([Buffer.alloc(10)]);
      await assert.rejects(read(body));
      assert.ok(body.destroyed);
    });
  }
});
