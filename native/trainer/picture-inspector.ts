import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { environmentWithoutSecrets } from '../../common/config.ts';
import { InternalError } from '../../common/errors.ts';
import { type InspectOptions, type PictureReport, faultyReport } from './data-report.ts';

/** One picture to look at, as the child gets it. */
export interface InspectRequest {
  directory: string;
  /** File name. */
  name: string;
  /** What is refused is not the parent's to say: a job's pictures have one set of limits. */
  options: Omit<InspectOptions, 'limits'>;
  /** Where the file holds but the first bytes of one that is too big: the size of the whole, null where nobody has said. */
  startOf?: { sizeBytes: number | null };
}

/** What the child answers: a report, or why even that can't be made. */
export type InspectAnswer = { report: PictureReport } | { failure: string };

/** What the child says; first of all, and once, that it could look at pictures. */
export type InspectorMessage = 'ready' | InspectAnswer;

/** How a child came to an end, or that it never came to be. */
type InspectorEnd = { ended: string; wasReady: boolean } | { notStarted: string };

/** How {@link PictureInspector} works; every part has a default. */
export interface PictureInspectorOptions {
  /** Module that the child runs. */
  entryFile?: string;
  /** A picture that takes longer ends the child. */
  limitMs?: number;
}

const ENTRY_FILE = fileURLToPath(new URL('./picture-inspector-main.ts', import.meta.url));
const LIMIT_MS = 60_000;

/** A crash may be another's fault; a second one, in a process that has seen nothing else, is the picture's. */
const ATTEMPTS = 2;

/**
 * Looks at a job's pictures in a child process that knows none of our keys: strangers' files are never decoded here. One
 * picture after the other, so that no more than one of them is unpacked in memory and a crash names its picture.
 */
export class PictureInspector {
  readonly #entryFile: string;
  readonly #limitMs: number;
  #child: ChildProcess | null = null;
  /** Children that could look at pictures: how another one ends says nothing about its picture. */
  readonly #ready = new WeakSet<ChildProcess>();
  #last: Promise<unknown> = Promise.resolve();
  #isClosed = false;

  /** @param options - see {@link PictureInspectorOptions}; nothing is started yet */
  constructor(options: PictureInspectorOptions = {}) {
    this.#entryFile = options.entryFile ?? ENTRY_FILE;
    this.#limitMs = options.limitMs ?? LIMIT_MS;
  }

  /**
   * Looks at one picture and its caption, as `inspectFile` does, or at its start, as `inspectStart` does; a picture that
   * crashes the decoder has that as its fault.
   *
   * @param request - where it lies, and what is going to be done with it
   * @throws InternalError when it can't be looked at for a reason that is not the picture's
   */
  inspect(request: InspectRequest): Promise<PictureReport> {
    const report = this.#last.then(() => this.#inspect(request));
    this.#last = report.catch(() => undefined);
    return report;
  }

  /** Ends the child at once; whatever waits for it rejects. */
  close(): void {
    this.#isClosed = true;
    this.#child?.kill('SIGKILL');
  }

  async #inspect(request: InspectRequest): Promise<PictureReport> {
    const { name } = request;
    for (let attempt = 1; ; attempt++) {
      if (this.#isClosed) throw new InternalError('The look at the pictures was called off.');
      const answer = await this.#ask(request);
      if ('report' in answer) return answer.report;
      if ('failure' in answer) throw new InternalError(`${name} could not be looked at: ${answer.failure}`);
      if (this.#isClosed || attempt < ATTEMPTS) continue;
      if ('notStarted' in answer) {
        throw new InternalError(
          `The process that looks at pictures could not be started (${answer.notStarted}): look at the limits of this worker.`,
        );
      }
      if (answer.ended === 'SIGKILL') {
        throw new InternalError(
          `The process that looks at ${name} was killed twice: for want of memory, or after ${this.#limitMs / 1000} s.`,
        );
      }
      if (!answer.wasReady) {
        throw new InternalError(
          `The process that looks at pictures ended before it had seen any (${answer.ended}): why stands in the log of this worker; look at its limits and its installation.`,
        );
      }
      return faultyReport(name, `makes the decoder crash (${answer.ended})`);
    }
  }

  #ask(request: InspectRequest): Promise<InspectAnswer | InspectorEnd> {
    const child = (this.#child ??= this.#start());
    return new Promise((resolve) => {
      const told = (message: InspectorMessage) => {
        if (message === 'ready') this.#ready.add(child);
        else settle(message);
      };
      const ended = (code: number | null, signal: NodeJS.Signals | null) =>
        settle({ ended: signal ?? `exit code ${code}`, wasReady: this.#ready.has(child) });
      const failed = (error: Error) => settle({ notStarted: error.message });
      const timer = setTimeout(() => child.kill('SIGKILL'), this.#limitMs);
      const settle = (outcome: InspectAnswer | InspectorEnd) => {
        clearTimeout(timer);
        child.off('message', told).off('exit', ended).off('error', failed);
        resolve(outcome);
      };
      child.on('message', told).on('exit', ended).on('error', failed);
      // What was not started can be told nothing; `error` comes. A broken pipe is the child's end, which `exit` reports.
      if (child.pid !== undefined) child.send(request, () => undefined);
    });
  }

  #start(): ChildProcess {
    const child = fork(this.#entryFile, [], {
      execArgv: [],
      env: environmentWithoutSecrets(),
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    const forget = () => {
      if (this.#child === child) this.#child = null;
    };
    child.once('exit', forget).on('error', forget);
    return child;
  }
}
