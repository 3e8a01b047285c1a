import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { StorageUnavailableError } from '../../../common/errors.ts';
import { uploadFile } from '../../../worker/upload-file.ts';

describe('uploadFile', () => {
  let directory: string;
  let file: string;

  before(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'brushwork-upload-'));
    file = path.join(directory, 'file');
    writeFileSync(file, 'all of it');
  });
  after(() => rmSync(directory, { recursive: true }));

  it('reads the file from its start for each try', async () => {
    const sent: string[] = [];
    const { sizeBytes } = await uploadFile(file, {
      attempts: 2,
      signal: undefined,
      send: async ({ body }) => {
        sent.push(Buffer.concat((await body.toArray()) as Buffer[]).toString());
        if (sent.length < 2) throw new StorageUnavailableError('Broken off.');
      },
    });
    assert.deepEqual([sent, sizeBytes], [['all of it', 'all of it'], 9]);
  });

  it('ends with the error of a disk that fails while it is read, whatever becomes of the request', async () => {
    const send = async ({ body }: { body: { destroy: (error: Error) => void } }) => {
      body.destroy(new Error('EIO: i/o error, read'));
      await new Promise(() => undefined);
    };
    await assert.rejects(uploadFile(file, { send, attempts: 2, signal: undefined }), /EIO/);
  });
});
