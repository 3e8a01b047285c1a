import assert from 'node:assert/strict';
import { isPublicAddress, publicLookup, refusePrivateLiteral } from '../../../worker/public-address.ts';

describe('isPublicAddress', () => {
  for (const address of ['8.8.8.8', '52.219.60.1', '172.32.0.1', '100.128.0.1', '2600:1f18::1', '2a00:1450:4001::1']) {
    it(`takes ${address}`, () => assert.ok(isPublicAddress(address)));
  }

  const refused = [
    ...['0.0.0.0', '10.1.2.3', '100.64.0.1', '127.0.0.1', '127.255.255.255', '169.254.169.254', '172.16.0.1'],
    ...['172.31.255.255', '192.0.0.1', '192.168.1.1', '198.18.0.1', '224.0.0.1', '255.255.255.255'],
    ...[
      '::',
      '::1',
      '::ffff:127.0.0.1',
      '::ffff:8.8.8.8',
      '64:ff9b::7f00:1',
      'fc00::1',
      'fd12::1',
      'fe80::1',
      'ff02::1',
    ],
    ...['2001:db8::1', '2002:7f00:1::', '2001::1', 'fec0::1', 'localhost', '', '1.2.3'],
  ];
  for (const address of refused) {
    it(`refuses ${JSON.stringify(address)}`, () => assert.ok(!isPublicAddress(address)));
  }
});

describe('refusePrivateLiteral', () => {
  const refused = [
    'https://127.0.0.1/',
    'https://2130706433/',
    'https://0x7f.1/',
    'https://0177.0.0.1/',
    'https://[::1]/',
    'https://[::ffff:169.254.169.254]/',
    'https://169.254.169.254/latest/meta-data/',
  ];
  for (const url of refused) {
    it(`refuses ${url}`, () => assert.throws(() => refusePrivateLiteral(new URL(url)), { code: 'BLOCKED_TARGET' }));
  }

  it('leaves names and public addresses alone', () => {
    refusePrivateLiteral(new URL('https://example.com/'));
    refusePrivateLiteral(new URL('https://8.8.8.8/'));
  });
});

describe('publicLookup', () => {
  it('fails for a name that leads to a private address', async () => {
    for (const all of [true, false]) {
      const error = await new Promise((resolve) => publicLookup('localhost', { all }, resolve));
      assert.equal((error as { code?: string } | null)?.code, 'BLOCKED_TARGET');
    }
  });
});
