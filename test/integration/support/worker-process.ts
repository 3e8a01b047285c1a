import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { until } from './until.ts';

const CLI = path.join(import.meta.dirname, '../../../cli/main.ts');
const STOP_LIMIT_MS = 15_000;

/** A line of a worker's log. */
export interface LogLine {
  /** When this test read it. */
  atMs: number;
  msg: string;
  [field: string]: unknown;
}

/** How a {@link WorkerProcess} is started, where that is not the usual way. */
export interface Launch {
  /** Command before the command, which must end in it by `exec`. */
  before?: readonly string[];
  /** `cli/main.ts` of another copy of the program. */
  program?: string;
}

/** `brushwork worker` as a process of its own. */
export class WorkerProcess {
  readonly lines: LogLine[] = [];
  readonly #child: ChildProcess;
  readonly #errors: string[] = [];

  /**
   * Starts it.
   *
   * @param roles - e.g. `['bridge', 'control']`
   * @param env - the whole configuration
   * @param launch - how
   */
  constructor(roles: readonly string[], env: Record<string, string>, { before = [], program = CLI }: Launch = {}) {
    const command = [...before, process.execPath, program, 'worker', '--role', roles.join(',')];
    // It ends with this process, however that ends.
    this.#child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...command], {
      env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const { stdout, stderr } = this.#child;
    if (stdout !== null) createInterface({ input: stdout }).on('line', (line) => this.#read(line));
    if (stderr !== null) createInterface({ input: stderr }).on('line', (line) => this.#errors.push(line));
  }

  /** Waits for a line of the log that has come or will come. */
  async waitForLine(matches: (line: LogLine) => boolean, what: string, timeoutMs = 120_000): Promise<LogLine> {
    let found: LogLine | undefined;
    await until(
      () => {
        if (this.#child.exitCode !== null)
          throw new Error(`The worker ended while waiting for ${what}:\n${this.tail()}`);
        found = this.lines.find(matches);
        return found !== undefined;
      },
      () => `${what}; log:\n${this.tail()}`,
      timeoutMs,
    );
    return found!;
  }

  /** The end of its log. */
  tail(): string {
    return [...this.lines.slice(-40).map((line) => JSON.stringify(line)), ...this.#errors.slice(-20)].join('\n');
  }

  /** All of its log that can still be read. */
  log(): string {
    return [...this.lines.map((line) => JSON.stringify(line)), ...this.#errors].join('\n');
  }

  /** Null while it runs and where a signal ended it. */
  get exitCode(): number | null {
    return this.#child.exitCode;
  }

  /** As a power cut would. */
  async kill(): Promise<void> {
    await this.#end('SIGKILL');
  }

  /** In an orderly way; returns the exit code. Kills it, and throws, when it does not end. */
  async stop(): Promise<number | null> {
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), STOP_LIMIT_MS);
    await this.#end('SIGTERM');
    clearTimeout(timer);
    if (this.#child.signalCode === 'SIGKILL') throw new Error(`The worker did not stop in time:\n${this.tail()}`);
    return this.#child.exitCode;
  }

  /** Takes its pod out of service; returns the exit code once the process has ended, null where a signal ended it. */
  async drain(): Promise<number | null> {
    await this.#end('SIGUSR2');
    return this.#child.exitCode;
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    if (!this.isRunning) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill(signal);
    await ended;
  }

  #read(line: string): void {
    try {
      this.lines.push({ ...(JSON.parse(line) as { msg: string }), atMs: Date.now() });
    } catch {
      this.#errors.push(line);
    }
  }
}
