import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const HEALTH_INTERVAL_MS = 100;
const LOG_TAIL_LINES = 30;

/** A program of the stack: how it is run and how one knows that it works. */
export interface PartDefinition {
  /** Names the log file and the error messages. */
  name: string;
  /** Program and arguments. */
  command: string[];
  env: Record<string, string | undefined>;
  /** Where its log goes: `<name>.log`, appended over restarts. */
  logDirectory: string;
  /** Throws until the part serves requests. */
  checkHealth: () => Promise<void>;
  /** Time to become healthy. Default: 120 s: a cold disk once took 50 s for RabbitMQ. */
  startTimeoutMs?: number;
  /** Time to end after SIGTERM before SIGKILL. Default: 5 s. */
  stopTimeoutMs?: number;
}

/** What a test may do to one part. */
export interface PartControl {
  readonly name: string;
  readonly isRunning: boolean;
  /** How it has ended by itself, `by SIGKILL` or `with exit code 1`; null while it runs and before. */
  readonly ending: string | null;
  /** Where its output goes. */
  readonly logFile: string;
  /** Starts it where it does not run, on the same port and data, and waits until it works. */
  start(): Promise<void>;
  /** Ends it in an orderly way, by force after a while. */
  stop(): Promise<void>;
  /** Ends it as a power cut would (SIGKILL) and waits until it is gone. */
  kill(): Promise<void>;
  /** Stops and starts it. */
  restart(): Promise<void>;
  /** Freezes it (SIGSTOP): connections stay open and nothing answers, as with a broken network. */
  pause(): void;
  /** Lets it go on after {@link PartControl.pause}. */
  resume(): void;
}

/**
 * One program of the stack, in a process group of its own. The kernel kills it when this process ends, however that
 * happens, so that nothing is left behind.
 */
export class Part implements PartControl {
  readonly name: string;
  readonly logFile: string;
  readonly #definition: PartDefinition;
  #child: ChildProcess | null = null;
  #exited: Promise<void> = Promise.resolve();

  constructor(definition: PartDefinition) {
    this.#definition = definition;
    this.name = definition.name;
    this.logFile = path.join(definition.logDirectory, `${definition.name}.log`);
  }

  get isRunning(): boolean {
    return this.#child !== null && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  get ending(): string | null {
    const { exitCode = null, signalCode = null } = this.#child ?? {};
    if (signalCode !== null) return `by ${signalCode}`;
    return exitCode === null ? null : `with exit code ${exitCode}`;
  }

  async start(): Promise<void> {
    if (this.isRunning) return;
    const { command, env, logDirectory, startTimeoutMs = 120_000 } = this.#definition;
    mkdirSync(logDirectory, { recursive: true });
    const log = openSync(this.logFile, 'a');
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', '--', ...command], {
      env,
      detached: true,
      stdio: ['ignore', log, log],
    });
    closeSync(log);
    this.#child = child;
    let failure: Error | null = null;
    this.#exited = new Promise((resolve) => {
      child.once('error', (error) => {
        failure = error;
        resolve();
      });
      child.once('exit', () => resolve());
    });
    const deadline = Date.now() + startTimeoutMs;
    for (;;) {
      try {
        await this.#definition.checkHealth();
        if (this.isRunning) return;
      } catch (error) {
        if (Date.now() > deadline) {
          await this.kill();
          throw this.#startError(`did not work within ${startTimeoutMs / 1000} s`, error);
        }
      }
      if (failure !== null || !this.isRunning) throw this.#startError('ended at once', failure);
      await sleep(HEALTH_INTERVAL_MS);
    }
  }

  async stop(): Promise<void> {
    if (!this.isRunning) return;
    this.resume();
    this.#signal('SIGTERM', this.#child?.pid ?? null);
    await Promise.race([this.#exited, sleep(this.#definition.stopTimeoutMs ?? 5_000, undefined, { ref: false })]);
    await this.kill();
  }

  async kill(): Promise<void> {
    // The group outlives its leader where the leader left children behind.
    const pid = this.#child?.pid;
    if (pid !== undefined) this.#signal('SIGKILL', -pid);
    await this.#exited;
    this.#child = null;
  }

  async restart(): Promise<void> {
    await this.stop();
    await this.start();
  }

  pause(): void {
    if (this.isRunning && this.#child?.pid !== undefined) this.#signal('SIGSTOP', -this.#child.pid);
  }

  resume(): void {
    if (this.isRunning && this.#child?.pid !== undefined) this.#signal('SIGCONT', -this.#child.pid);
  }

  #signal(signal: NodeJS.Signals, target: number | null): void {
    if (target === null) return;
    try {
      process.kill(target, signal);
    } catch {
      // It is gone already.
    }
  }

  #startError(what: string, cause: unknown): Error {
    let tail = '';
    try {
      tail = readFileSync(this.logFile, 'utf8').trimEnd().split('\n').slice(-LOG_TAIL_LINES).join('\n');
    } catch {
      // It wrote nothing.
    }
    return new Error(`${this.name} ${what}. The end of ${this.logFile}:\n${tail}`, { cause });
  }
}
