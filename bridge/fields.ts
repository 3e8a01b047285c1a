const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Reads one object of a message: notes what is missing or of the wrong kind, and knows what nobody asked for. */
export class Fields {
  readonly #path: string;
  readonly #values: Readonly<Record<string, unknown>>;
  readonly #faults: string[];
  readonly #known = new Set<string>();

  /**
   * @param path - names the object in faults; empty for the message itself
   * @param values - the object
   * @param faults - where faults are added, as phrases
   */
  constructor(path: string, values: Record<string, unknown>, faults: string[]) {
    this.#path = path;
    this.#values = values;
    this.#faults = faults;
  }

  /** Marks fields as known although nobody reads them. */
  ignore(...names: string[]): void {
    for (const name of names) this.#known.add(name);
  }

  /** Fields that were not asked for so far, with their path. */
  unknown(): string[] {
    return Object.keys(this.#values)
      .filter((name) => !this.#known.has(name))
      .map((name) => this.#nameOf(name));
  }

  text(name: string): string {
    return this.#read(name, 'a text', (value) => (typeof value === 'string' && value !== '' ? value : null)) ?? '';
  }

  /** Null when absent or null. */
  optionalText(name: string): string | null {
    return this.#has(name) ? this.text(name) : null;
  }

  positiveInteger(name: string): number {
    const accept = (value: unknown) =>
      typeof value === 'number' && Number.isSafeInteger(value) && value > 0 ? value : null;
    return this.#read(name, 'a positive whole number', accept) ?? 0;
  }

  /** Null when absent or null. */
  optionalNumber(name: string): number | null {
    const accept = (value: unknown) => (typeof value === 'number' && Number.isFinite(value) ? value : null);
    return this.#has(name) ? this.#read(name, 'a number', accept) : null;
  }

  texts(name: string): string[] {
    const accept = (value: unknown) =>
      Array.isArray(value) && value.every((item): item is string => typeof item === 'string' && item !== '')
        ? value
        : null;
    return this.#read(name, 'a list of texts', accept) ?? [];
  }

  /** Empty when absent or null. */
  optionalTexts(name: string): string[] {
    return this.#has(name) ? this.texts(name) : [];
  }

  object(name: string): Fields {
    const value = this.#read(name, 'an object', (raw) => (isObject(raw) ? raw : null));
    // What is missing inside an object that is missing itself is not worth a fault each.
    return new Fields(this.#nameOf(name), value ?? {}, value === null ? [] : this.#faults);
  }

  /** Null when absent or null. */
  optionalObject(name: string): Fields | null {
    return this.#has(name) ? this.object(name) : null;
  }

  #has(name: string): boolean {
    this.#known.add(name);
    return Object.hasOwn(this.#values, name) && this.#values[name] !== null;
  }

  #read<T>(name: string, expected: string, accept: (value: unknown) => T | null): T | null {
    const isPresent = this.#has(name);
    const accepted = isPresent ? accept(this.#values[name]) : null;
    if (accepted === null) {
      this.#faults.push(`${this.#nameOf(name)} ${isPresent ? `must be ${expected}` : `is missing (${expected})`}`);
    }
    return accepted;
  }

  #nameOf(name: string): string {
    const shown = name.slice(0, 64);
    return this.#path === '' ? shown : `${this.#path}.${shown}`;
  }
}
