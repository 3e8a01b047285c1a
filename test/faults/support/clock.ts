import { execFileSync } from 'node:child_process';
import { closeSync, openSync, writeFileSync, writeSync } from 'node:fs';
import path from 'node:path';

const SOURCE = path.join(import.meta.dirname, 'clock-shift.c');

/** Builds what {@link Clock} preloads, with the C compiler that the set-up needs anyway; returns the file. */
export function buildClockShift(directory: string): string {
  const library = path.join(directory, 'clock-shift.so');
  execFileSync(process.env['CC'] ?? 'cc', ['-shared', '-fPIC', '-O1', '-o', library, SOURCE, '-ldl']);
  return library;
}

/** The wall clock of a process and its children, which can be set. Clocks that only measure durations go on as they are. */
export class Clock {
  /** To be put into the environment of the process. */
  readonly env: Record<string, string>;
  readonly #file: string;

  /**
   * @param library - from {@link buildClockShift}
   * @param file - that this clock may have to itself
   */
  constructor(library: string, file: string) {
    this.#file = file;
    writeFileSync(file, Buffer.alloc(8));
    this.env = { LD_PRELOAD: library, CLOCK_SHIFT_FILE: file };
  }

  /** Makes the clock differ from the machine's from now on; the process has the file mapped. */
  shiftTo(seconds: number): void {
    const bytes = Buffer.alloc(8);
    bytes.writeBigInt64LE(BigInt(seconds));
    const file = openSync(this.#file, 'r+');
    writeSync(file, bytes, 0, bytes.length, 0);
    closeSync(file);
  }
}
