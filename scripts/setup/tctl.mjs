import { buildGoTool, goToolPath, hasGoTool } from './go.mjs';
import { TCTL } from './pins.mjs';

/** @returns {string} where tctl is in the cache */
export function tctlPath() {
  return goToolPath(TCTL);
}

/** @returns {boolean} whether {@link setUpTctl} has nothing to build */
export function hasTctl() {
  return hasGoTool(TCTL);
}

/** Builds tctl where the cache lacks it. */
export async function setUpTctl() {
  await buildGoTool(TCTL);
}
