const UNIT_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;

/** Longest delay that a Node timer takes (2^31 - 1 ms, about 24.8 days). */
export const MAX_DURATION_MS = 2_147_483_647;

/**
 * Reads a duration as people write it.
 *
 * @param text - a number and a unit: `500ms`, `30s`, `10m`, `24h`, `7d`
 * @returns milliseconds, or null when the text is not a duration from 0 to {@link MAX_DURATION_MS}
 */
export function parseDurationMs(text: string): number | null {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)$/.exec(text.trim());
  if (match === null) return null;
  const durationMs = Number(match[1]) * UNIT_MS[match[2] as keyof typeof UNIT_MS];
  return durationMs <= MAX_DURATION_MS ? Math.round(durationMs) : null;
}
