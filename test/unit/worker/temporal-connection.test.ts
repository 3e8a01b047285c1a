import assert from 'node:assert/strict';
import { createLogger } from '../../../common/logger.ts';
import { connectFault, connectToTemporal } from '../../../worker/temporal-connection.ts';

describe('connecting to Temporal', () => {
  it('says in a short line each time that the server does not answer, where, and why', async () => {
    const stop = new AbortController();
    const lines: string[] = [];
    const write = (line: string): void => {
      lines.push(line);
      stop.abort();
    };
    const address = '127.0.0.1:1';
    const connecting = connectToTemporal(
      { address, namespace: 'default', connection: { address } },
      createLogger({ level: 'info', destination: { write } }),
      stop.signal,
    );
    await assert.rejects(connecting, /abort/i);
    assert.equal(lines.length, 1);
    const { msg, reason, address: told, err } = JSON.parse(lines[0] ?? '') as Record<string, unknown>;
    assert.deepEqual([msg, reason, told], ['Temporal does not answer: trying again', 'Connection refused', address]);
    assert.equal(err, undefined);
  });

  it('leaves a reason that holds no text as it is, but for its length', () => {
    const reason =
      'tonic::transport::Error(Transport, Custom { kind: InvalidData, error: InvalidCertificate(Expired) })';
    assert.equal(connectFault(new Error(reason)), reason);
    assert.equal(connectFault(new Error('x'.repeat(1000))).length, 200);
  });
});
