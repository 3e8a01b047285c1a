import { startBackend } from '../../../scripts/stack/backend.ts';
import type { Backend } from '../../../scripts/stack/backend.ts';
import { Link } from './link.ts';

/** A backend, and the way to it: one case after another uses it. */
export interface Lane {
  backend: Backend;
  link: Link;
}

/** Where jobs send their notices: through the link. */
export const originOf = ({ link }: Lane) => `http://${link.address}`;

/** Starts a backend and opens the way to it. */
export async function openLane(token: string): Promise<Lane> {
  const backend = await startBackend({ token });
  return { backend, link: await Link.open(new URL(backend.origin).host) };
}
