/**
 * A value as it stands in JSON, for messages. Numbers that JSON does not know, 1e400 for example, are not called null.
 *
 * @param value - as parsed from JSON or YAML
 */
export function shown(value: unknown): string {
  return typeof value === 'number' ? String(value) : (JSON.stringify(value) ?? String(value));
}
