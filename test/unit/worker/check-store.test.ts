import assert from 'node:assert/strict';
import { InternalError, StorageUnavailableError } from '../../../common/errors.ts';
import { createLogger } from '../../../common/logger.ts';
import { checkStoreAtStart, storeCheck } from '../../../worker/check-store.ts';

describe('storeCheck', () => {
  let calls: string[];
  let probes: (() => Promise<void>)[];
  const store = {
    probe: () => {
      calls.push('probe');
      return probes.shift()?.() ?? Promise.resolve();
    },
    list: async () => {
      calls.push('list');
      return [];
    },
  };

  beforeEach(() => {
    calls = [];
    probes = [];
  });

  it('writes nothing once the bucket has shown what it can: an idle pod looks every minute', async () => {
    const check = storeCheck(store, 'bucket');
    for (let times = 0; times < 3; times++) await check();
    assert.deepEqual(calls, ['probe', 'list', 'list']);
  });

  it('tries conditional writes later where the store was down at the start, before the pod takes any job', async () => {
    const logger = createLogger({ level: 'info', secrets: [], destination: { write: () => undefined } });
    probes.push(() => Promise.reject(new StorageUnavailableError('Down.')));
    probes.push(() => Promise.reject(new InternalError('The store ignores conditional writes.')));
    const check = storeCheck(store, 'bucket');
    await checkStoreAtStart(check, logger);
    await assert.rejects(check(), /ignores conditional writes/);
    await check();
    await check();
    assert.deepEqual(calls, ['probe', 'probe', 'probe', 'list']);
  });
});
