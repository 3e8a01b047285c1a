import { buildGoTool, goToolPath, hasGoTool } from './go.mjs';
import { TEMPORAL } from './pins.mjs';
import { which } from './shell.mjs';

/** @returns {string} the Temporal CLI, which contains the development server and its Web UI: the PATH's, else the cache's */
export function temporalPath() {
  return which('temporal') ?? goToolPath(TEMPORAL);
}

/** @returns {boolean} whether {@link setUpTemporal} has nothing to build */
export function hasTemporal() {
  return which('temporal') !== null || hasGoTool(TEMPORAL);
}

/** Builds the Temporal CLI where neither the PATH nor the cache has it. */
export async function setUpTemporal() {
  if (!hasTemporal()) await buildGoTool(TEMPORAL);
}
