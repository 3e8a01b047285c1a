import { buildGoTool, goToolPath, hasGoTool } from './go.mjs';
import { TCTL } from './pins.mjs';
import { which } from './shell.mjs';

/** @returns {string} tctl: the PATH's, else the cache's */
export function tctlPath() {
  return which('tctl') ?? goToolPath(TCTL);
}

/** @returns {boolean} whether {@link setUpTctl} has nothing to build */
export function hasTctl() {
  return which('tctl') !== null || hasGoTool(TCTL);
}

/** Builds tctl where neither the PATH nor the cache has it. */
export async function setUpTctl() {
  if (!hasTctl()) await buildGoTool(TCTL);
}
