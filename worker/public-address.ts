import { lookup } from 'node:dns';
import { BlockList, isIP } from 'node:net';
import type { LookupFunction } from 'node:net';
import { BlockedTargetError } from '../common/errors.ts';

/**
 * IPv4 ranges that are not on the public internet.
 * Source: https://www.iana.org/assignments/iana-ipv4-special-registry
 */
const PRIVATE_IPV4 = [
  ['0.0.0.0', 8],
  ['10.0.0.0', 8],
  ['100.64.0.0', 10],
  ['127.0.0.0', 8],
  ['169.254.0.0', 16],
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.0.2.0', 24],
  ['192.88.99.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['198.51.100.0', 24],
  ['203.0.113.0', 24],
  ['224.0.0.0', 3],
] as const;

/**
 * Special blocks inside 2000::/3, the only IPv6 range that is public; 6to4 and Teredo wrap IPv4 addresses.
 * Source: https://www.iana.org/assignments/iana-ipv6-special-registry
 */
const PRIVATE_IPV6 = [
  ['2001::', 23],
  ['2001:db8::', 32],
  ['2002::', 16],
  ['3fff::', 20],
] as const;

const privateIpv4 = new BlockList();
for (const [address, prefix] of PRIVATE_IPV4) privateIpv4.addSubnet(address, prefix, 'ipv4');
const privateIpv6 = new BlockList();
for (const [address, prefix] of PRIVATE_IPV6) privateIpv6.addSubnet(address, prefix, 'ipv6');
const globalIpv6 = new BlockList();
globalIpv6.addSubnet('2000::', 3, 'ipv6');

/**
 * Tells whether an address is on the public internet.
 *
 * @param address - an IPv4 or IPv6 literal, without brackets
 * @returns false for private, loopback, link-local, mapped and reserved addresses, and for what is no address at all
 */
export function isPublicAddress(address: string): boolean {
  switch (isIP(address)) {
    case 4:
      return !privateIpv4.check(address, 'ipv4');
    case 6:
      return globalIpv6.check(address, 'ipv6') && !privateIpv6.check(address, 'ipv6');
    default:
      return false;
  }
}

/**
 * Refuses URLs whose host is a literal private address: those never reach {@link publicLookup}.
 *
 * @param url - the URL that will be fetched
 * @throws BlockedTargetError
 */
export function refusePrivateLiteral(url: URL): void {
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  if (isIP(host) !== 0 && !isPublicAddress(host)) throw blocked(url.hostname);
}

/**
 * A `lookup` for sockets that fails for names with any private address. The check sits in the connection itself, so a
 * name that resolves differently the second time gains nothing.
 */
export const publicLookup: LookupFunction = (hostname, options, callback) => {
  lookup(hostname, { ...options, all: true }, (error, addresses) => {
    if (error !== null) {
      callback(error, '', 0);
      return;
    }
    const [first] = addresses;
    if (first === undefined || !addresses.every(({ address }) => isPublicAddress(address))) {
      callback(blocked(hostname), '', 0);
    } else if (options.all === true) {
      callback(null, addresses);
    } else {
      callback(null, first.address, first.family);
    }
  });
};

function blocked(host: string): BlockedTargetError {
  return new BlockedTargetError(
    `"${host}" is not a public address: images are fetched from public hosts and our own store only.`,
  );
}
