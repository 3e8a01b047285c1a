import assert from 'node:assert/strict';
import { once } from '../../../worker/once.ts';

describe('once', () => {
  it('asks once, also when asked again meanwhile', async () => {
    let asked = 0;
    const answer = once(() => Promise.resolve((asked += 1)));
    assert.deepEqual(await Promise.all([answer(), answer()]), [1, 1]);
    assert.equal(await answer(), 1);
  });

  it('asks again after a failure', async () => {
    let asked = 0;
    const answer = once(() => {
      asked += 1;
      return asked === 1 ? Promise.reject(new Error('first')) : Promise.resolve(asked);
    });
    await assert.rejects(answer());
    assert.equal(await answer(), 2);
  });
});
