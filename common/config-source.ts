import { nearest } from './nearest.ts';
import { MAX_DURATION_MS, parseDurationMs } from './duration.ts';
import { shown } from './shown.ts';

/** Thrown when the configuration can't be used: lists every fault at once, a line each with how to mend it. */
export class ConfigError extends Error {
  readonly faults: readonly string[];

  /** @param faults - one sentence per fault, naming the setting */
  constructor(faults: readonly string[]) {
    super(
      `The configuration has ${faults.length} fault${faults.length === 1 ? '' : 's'}:\n${faults.map((fault) => `  - ${fault}`).join('\n')}`,
    );
    this.name = 'ConfigError';
    this.faults = faults;
  }
}

/** Reads environment variables; an empty one counts as unset, as in `.env` files and container definitions. */
export class Environment {
  readonly #values: NodeJS.ProcessEnv;
  readonly #faults: string[];

  constructor(values: NodeJS.ProcessEnv, faults: string[]) {
    this.#values = values;
    this.#faults = faults;
  }

  /** The value of the first of these variables that is set, or null. */
  text(...names: string[]): string | null {
    for (const name of names) {
      const value = this.#values[name];
      if (value !== undefined && value.trim() !== '') return value.trim();
    }
    return null;
  }

  /** Like {@link text}, but a fault when none is set; `remedy` says what to set it to. */
  required(names: string[], remedy: string): string {
    const value = this.text(...names);
    if (value === null) this.#faults.push(`${names.join(' or ')} is not set: ${remedy}.`);
    return value ?? '';
  }

  /** A whole number in a range, or null when unset. */
  integer(name: string, min: number, max: number): number | null {
    const value = this.text(name);
    if (value === null) return null;
    const number = Number(value);
    if (/^\d+$/.test(value) && number >= min && number <= max) return number;
    this.#faults.push(`${name} is ${JSON.stringify(value)}: set it to a whole number from ${min} to ${max}.`);
    return null;
  }
}

/** Reads one mapping of the YAML file and notes what is missing, wrong or unknown. */
export class Section {
  readonly path: string;
  readonly #values: Readonly<Record<string, unknown>>;
  readonly #faults: string[];
  readonly #known = new Set<string>();

  constructor(path: string, value: unknown, faults: string[]) {
    this.path = path;
    this.#faults = faults;
    const isMapping = typeof value === 'object' && value !== null && !Array.isArray(value);
    if (!isMapping) faults.push(`${path} must be a mapping of settings ("key: value" lines), but is ${show(value)}.`);
    this.#values = isMapping ? (value as Record<string, unknown>) : {};
  }

  /** Notes a fault of this section's setting `key`. */
  fault(key: string, remedy: string): void {
    this.#faults.push(`${this.path}.${key} ${remedy}.`);
  }

  /** The raw value, marked as known; undefined when absent. */
  raw(key: string): unknown {
    this.#known.add(key);
    return this.#values[key];
  }

  section(key: string): Section {
    return new Section(`${this.path}.${key}`, this.raw(key) ?? null, this.#faults);
  }

  text(key: string): string {
    return this.#read(key, 'a text', (value) => (typeof value === 'string' && value !== '' ? value : null)) ?? '';
  }

  /** A text, or null for `none`. */
  textOrNone(key: string): string | null {
    const value = this.text(key);
    return value === 'none' ? null : value;
  }

  choice<T extends string>(key: string, choices: readonly T[]): T {
    const expected = `one of ${choices.join(', ')}`;
    const value = this.#read(key, expected, (raw) => choices.find((choice) => choice === raw) ?? null);
    return value ?? (choices[0] as T);
  }

  flag(key: string): boolean {
    return this.#read(key, 'true or false', (value) => (typeof value === 'boolean' ? value : null)) ?? false;
  }

  number(key: string, min: number, max: number): number {
    const accept = (value: unknown) => (typeof value === 'number' && value >= min && value <= max ? value : null);
    return this.#read(key, `a number from ${min} to ${max}`, accept) ?? min;
  }

  integer(key: string, min: number, max: number): number {
    const accept = (value: unknown) =>
      typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max ? value : null;
    return this.#read(key, `a whole number from ${min} to ${max}`, accept) ?? min;
  }

  /** A whole number, or null for `none`. */
  integerOrNone(key: string, min: number, max: number): number | null {
    return this.raw(key) === 'none' ? null : this.integer(key, min, max);
  }

  /** Milliseconds of a duration like `30s`, at least so many seconds. */
  durationMs(key: string, minSeconds = 0): number {
    const accept = (value: unknown) => {
      const durationMs = typeof value === 'string' ? parseDurationMs(value) : null;
      return durationMs === null || durationMs < minSeconds * 1000 ? null : durationMs;
    };
    const limits = `${minSeconds > 0 ? `at least ${minSeconds}s, ` : ''}at most ${Math.floor(MAX_DURATION_MS / 86_400_000)}d`;
    return this.#read(key, `a duration with its unit, like 500ms, 30s, 10m, 24h (${limits})`, accept) ?? 0;
  }

  /** Milliseconds, or null for `none`. */
  durationMsOrNone(key: string): number | null {
    return this.raw(key) === 'none' ? null : this.durationMs(key);
  }

  texts(key: string): string[] {
    const accept = (value: unknown) =>
      Array.isArray(value) && value.every((item): item is string => typeof item === 'string') ? value : null;
    return this.#read(key, 'a list of texts, like [a, b]', accept) ?? [];
  }

  /** Reports keys that nobody has asked for: a misspelt setting must not be ignored in silence. */
  finish(): void {
    for (const key of Object.keys(this.#values)) {
      if (this.#known.has(key)) continue;
      const hint = nearest(key, [...this.#known]);
      this.fault(
        key,
        `is not a setting${hint === null ? `; known here: ${[...this.#known].join(', ')}` : `; did you mean ${hint}`}`,
      );
    }
  }

  #read<T>(key: string, expected: string, accept: (value: unknown) => T | null): T | null {
    const value = this.raw(key);
    const accepted = accept(value);
    if (accepted === null)
      this.fault(key, `must be ${expected}, but is ${value === undefined ? 'missing' : show(value)}`);
    return accepted;
  }
}

function show(value: unknown): string {
  const text = shown(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

/**
 * Lays one parsed YAML document over another: mappings are merged key by key, everything else is replaced.
 *
 * @returns a new value; neither input is changed
 */
export function overlay(base: unknown, top: unknown): unknown {
  if (!isMapping(base) || !isMapping(top)) return top === undefined || top === null ? base : top;
  const merged: Record<string, unknown> = { ...base };
  for (const [key, value] of Object.entries(top)) merged[key] = overlay(merged[key], value);
  return merged;
}

function isMapping(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
