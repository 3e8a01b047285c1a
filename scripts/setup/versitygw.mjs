import { buildGoTool, goToolPath, hasGoTool } from './go.mjs';
import { VERSITYGW } from './pins.mjs';
import { which } from './shell.mjs';

/** @returns {string} the S3 server: the PATH's, else the cache's */
export function versitygwPath() {
  return which('versitygw') ?? goToolPath(VERSITYGW);
}

/** @returns {boolean} whether {@link setUpVersitygw} has nothing to build */
export function hasVersitygw() {
  return which('versitygw') !== null || hasGoTool(VERSITYGW);
}

/** Builds the S3 server where neither the PATH nor the cache has it. */
export async function setUpVersitygw() {
  if (!hasVersitygw()) await buildGoTool(VERSITYGW);
}
