import { type ChildProcess, fork } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import { environmentWithoutSecrets } from '../../common/config.ts';
import { type BrushworkError, ERROR_CLASSES, GpuFaultError } from '../../common/errors.ts';
import type { StepReport } from '../../common/trainer.ts';
import { countOutOfMemoryKills, describeExit } from './child-exit.ts';
import type {
  TrainerCommand,
  TrainerMessage,
  TrainerProcessArguments,
  TrainerResults,
  WorkerMessage,
} from './messages.ts';

/** Where a trainer's own words go. */
export type TrainerLogger = Pick<Logger, 'debug' | 'info' | 'warn' | 'error'>;

/** Lines of stderr that an error quotes. */
const KEPT_LINES = 5;
/** A process that is killed is gone long before, unless it hangs in the kernel. */
const KILL_LIMIT_MS = 5_000;

interface PendingCommand {
  resolve: (result: never) => void;
  reject: (error: BrushworkError) => void;
  onStep: ((report: StepReport) => void) | null;
}

/** A command under way. */
export interface SentCommand<T> {
  id: number;
  answer: Promise<T>;
}

/** One trainer process as its parent sees it, from fork to end. */
export class TrainerChild {
  readonly #process: ChildProcess;
  readonly #logger: TrainerLogger;
  readonly #pending = new Map<number, PendingCommand>();
  readonly #lastLines: string[] = [];
  /** Put into each log line. */
  labels: Readonly<Record<string, string | number>> = {};
  /** What it runs on; null where that is not known yet. */
  device: 'cpu' | 'cuda' | null = null;
  readonly #killsAtStart = countOutOfMemoryKills();
  readonly #killLimitMs: number;
  readonly #ended: Promise<void>;
  #isGone = false;
  #failure: BrushworkError | null = null;
  #dying: Promise<void> | null = null;
  #lastId = 0;

  /**
   * Forks the process; it answers as soon as it has loaded the addon.
   *
   * @param entryFile - module to run
   * @param options - what it is told
   * @param environment - what differs from this process' environment for the libraries that it loads
   * @param logger - receives what the process prints
   * @param killLimitMs - after which a process that is killed counts as one that can't be
   */
  constructor(
    entryFile: string,
    options: TrainerProcessArguments,
    environment: NodeJS.ProcessEnv,
    logger: TrainerLogger,
    killLimitMs = KILL_LIMIT_MS,
  ) {
    this.#logger = logger;
    this.#killLimitMs = killLimitMs;
    this.#process = fork(entryFile, [JSON.stringify(options)], {
      serialization: 'advanced',
      execArgv: [],
      // It decodes strangers' pictures and needs none of our keys.
      env: { ...environmentWithoutSecrets(), ...environment },
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    this.#process.on('message', (message) => this.#receive(message as TrainerMessage));
    this.#readLines(this.#process.stdout, (line) => logger.info({ ...this.labels, stream: 'stdout' }, line));
    this.#readLines(this.#process.stderr, (line) => {
      logger.warn({ ...this.labels, stream: 'stderr' }, line);
      this.#lastLines.push(line);
      if (this.#lastLines.length > KEPT_LINES) this.#lastLines.shift();
    });
    this.#ended = new Promise((resolve) => {
      // 'close' comes after the last output has been read, so that the error can quote it.
      this.#process.once('close', (code, signal) => {
        this.#isGone = true;
        this.#end(this.#failure ?? this.#exitError(code, signal));
        resolve();
      });
      this.#process.once('error', (cause) => {
        this.#end(new GpuFaultError(`The trainer process can't be started: ${cause.message}.`, { cause }));
        if (this.#process.pid !== undefined) return;
        this.#isGone = true;
        resolve();
      });
    });
  }

  /** Why the process can't be used any more, or null while it can. */
  get failure(): BrushworkError | null {
    return this.#failure;
  }

  /** False also of a process that was killed and is still there. */
  get isGone(): boolean {
    return this.#isGone;
  }

  /** Process id, for the log. */
  get pid(): number | undefined {
    return this.#process.pid;
  }

  /**
   * Sends a command.
   *
   * @param command - what to do
   * @param onStep - receives the reports of a `train`
   * @returns its id and its answer; the answer rejects with the class of `common/errors.ts` that the trainer named
   */
  send<K extends TrainerCommand['kind']>(
    command: Extract<TrainerCommand, { kind: K }>,
    onStep: ((report: StepReport) => void) | null = null,
  ): SentCommand<TrainerResults[K]> {
    const id = ++this.#lastId;
    const answer = new Promise<TrainerResults[K]>((resolve, reject) => {
      if (this.#failure !== null) {
        reject(this.#failure);
        return;
      }
      this.#pending.set(id, { resolve, reject, onStep });
      this.#post({ kind: 'command', id, command });
    });
    return { id, answer };
  }

  /** Makes the `train`, `validate`, `sample` or `drawSheet` command of this id return at the next step. */
  stop(id: number): void {
    if (this.#pending.has(id)) this.#post({ kind: 'stop', id });
  }

  /**
   * Ends the process at once and waits until it is gone. One that hangs in the kernel does not go: it is waited for no longer
   * than a few seconds, and what is under way fails then. Idempotent.
   */
  async kill(): Promise<void> {
    this.#failure ??= new GpuFaultError('The trainer process was ended by its worker before it had finished.');
    this.#process.kill('SIGKILL');
    await (this.#dying ??= this.#untilGone());
  }

  async #untilGone(): Promise<void> {
    const timer = new AbortController();
    const late = sleep(this.#killLimitMs, 'late' as const, { signal: timer.signal }).catch(() => 'late' as const);
    const outcome = await Promise.race([this.#ended, late]);
    timer.abort();
    if (outcome !== 'late') return;
    const error = new GpuFaultError(
      `The trainer process ${this.pid} does not end, not even by SIGKILL: it hangs in the kernel, most likely in the GPU's driver. This pod trains nothing until it is gone: look at dmesg, and restart the machine.`,
    );
    this.#logger.error({ ...this.labels, code: error.code, pid: this.pid }, error.message);
    this.#failure = error;
    this.#end(error);
  }

  #post(message: WorkerMessage): void {
    // When the pipe is broken the process has ended, and 'close' says so with more detail.
    this.#process.send(message, () => undefined);
  }

  #receive(message: TrainerMessage): void {
    const pending = this.#pending.get(message.id);
    if (pending === undefined) return;
    if (message.kind === 'steps') {
      for (const report of message.reports) pending.onStep?.(report);
      return;
    }
    this.#pending.delete(message.id);
    if (message.kind === 'result') {
      pending.resolve(message.result as never);
      return;
    }
    const error = new ERROR_CLASSES[message.code](message.message);
    pending.reject(error);
    if (error instanceof GpuFaultError) {
      // After a fault the process can't use the GPU any more, for any job.
      this.#end(error);
      void this.kill();
    }
  }

  #exitError(code: number | null, signal: NodeJS.Signals | null): BrushworkError {
    const outOfMemoryKills = countOutOfMemoryKills() - this.#killsAtStart;
    const error = describeExit({ code, signal, outOfMemoryKills, device: this.device, lastLines: this.#lastLines });
    this.#logger.error({ ...this.labels, code: error.code, pid: this.pid }, error.message);
    return error;
  }

  #end(error: BrushworkError): void {
    this.#failure ??= error;
    for (const pending of this.#pending.values()) pending.reject(this.#failure);
    this.#pending.clear();
  }

  #readLines(stream: Readable | null, onLine: (line: string) => void): void {
    if (stream === null) return;
    createInterface({ input: stream }).on('line', onLine);
  }
}
