/**
 * Finds the first version number in a text, e.g. in `v20.20.2`, `go1.26.8` or `cmake version 3.25.1`.
 *
 * @param {string} text
 * @returns {number[] | null} major, minor, patch (0 where absent)
 */
export function parseVersion(text) {
  const found = /(\d+)\.(\d+)(?:\.(\d+))?/.exec(text);
  return found ? [Number(found[1]), Number(found[2]), Number(found[3] ?? 0)] : null;
}

/**
 * @param {number[]} version
 * @param {number[]} oldest
 * @returns {boolean}
 */
export function isAtLeast(version, oldest) {
  for (let i = 0; i < oldest.length; i += 1) {
    const difference = (version[i] ?? 0) - (oldest[i] ?? 0);
    if (difference !== 0) return difference > 0;
  }
  return true;
}
