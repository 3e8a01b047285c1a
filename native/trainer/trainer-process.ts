import { fileURLToPath } from 'node:url';
import { CancelledError, GpuFaultError } from '../../common/errors.ts';
import type {
  SampleRequest,
  SheetRequest,
  StepReport,
  Trainer,
  TrainerJob,
  TrainerPosition,
  TrainerRuntime,
} from '../../common/trainer.ts';
import type { DrawingModel, TrainerDevice } from './messages.ts';
import { type SentCommand, TrainerChild, type TrainerLogger } from './trainer-child.ts';

/** How a {@link TrainerProcess} runs. */
export interface TrainerProcessOptions {
  device: TrainerDevice;
  /** CPU threads for the mathematics: results are equal bit for bit only under equal counts. */
  threadCount: number;
  /** The GPUs that it may see, as in `CUDA_VISIBLE_DEVICES`; default: what the environment says. */
  cudaVisibleDevices?: string | null;
  /** See `common/fault-point.ts`; default: off. */
  faultPoints?: string | null;
  /** Receives what the process prints, line by line. */
  logger: TrainerLogger;
  /** Module that calls `serveTrainer`; default: the one that loads the native addon. */
  entryFile?: string;
  /** After which a process that is killed counts as one that can't be; default: a few seconds. */
  killLimitMs?: number;
}

const ENTRY_FILE = fileURLToPath(new URL('./trainer-main.ts', import.meta.url));

/**
 * The trainer as a child process: a segfault, a CUDA fault or the out-of-memory killer takes the child, never the worker.
 * The process is started by the first call that needs it, outlives jobs and keeps the base model loaded; it dies within
 * a second of its parent, however that one ends.
 */
export class TrainerProcess implements Trainer {
  readonly #options: TrainerProcessOptions;
  #child: TrainerChild | null = null;
  #held: { jobId: string; position: TrainerPosition } | null = null;
  /** What the trainer has run on; null before it was asked. */
  #ranOn: 'cpu' | 'cuda' | null = null;

  /** @param options - device, threads and logger; nothing is started yet */
  constructor(options: TrainerProcessOptions) {
    this.#options = options;
  }

  /**
   * What the trainer runs on. A GPU that it has had must be there again in each process that it starts later: going on
   * without it would take for ever, and give other weights.
   *
   * @throws GpuFaultError when the GPU is gone
   */
  async runtime(): Promise<TrainerRuntime> {
    const child = await this.#start();
    const runtime = await child.send({ kind: 'runtime' }).answer;
    this.#ranOn = child.device = runtime.device;
    return runtime;
  }

  /** An aborted `prepare` ends the process, as loading can't be interrupted, and rejects with the signal's reason. */
  async prepare(job: TrainerJob, checkpointFile: string | null, signal: AbortSignal): Promise<TrainerPosition> {
    this.#held = null;
    throwIfAborted(signal);
    const child = await this.#start();
    throwIfAborted(signal);
    child.labels = job.logLabels;
    const end = (): void => void child.kill();
    signal.addEventListener('abort', end, { once: true });
    try {
      const position = await child.send({ kind: 'prepare', job, checkpointFile }).answer;
      this.#held = { jobId: job.jobId, position };
      return position;
    } catch (error) {
      throwIfAborted(signal);
      throw error;
    } finally {
      signal.removeEventListener('abort', end);
    }
  }

  position(jobId: string): TrainerPosition | null {
    if (this.#held?.jobId !== jobId || this.#child === null || this.#child.failure !== null) return null;
    return this.#held.position;
  }

  async train(
    untilEpoch: number,
    onStep: (report: StepReport) => void,
    signal: AbortSignal,
  ): Promise<{ position: TrainerPosition; stopped: boolean }> {
    const { child, held } = this.#running();
    if (signal.aborted) return { position: held.position, stopped: true };
    // The position is known again only when the run has come to rest; after an error the run can't be continued.
    this.#held = null;
    let fault: { error: unknown } | null = null;
    const { id, answer } = child.send({ kind: 'train', untilEpoch }, (report) => {
      if (fault !== null) return;
      try {
        onStep(report);
      } catch (error) {
        fault = { error };
        child.stop(id);
      }
    });
    const stop = (): void => child.stop(id);
    signal.addEventListener('abort', stop, { once: true });
    try {
      const result = await answer;
      this.#held = { jobId: held.jobId, position: result.position };
      if (fault !== null) throw (fault as { error: unknown }).error;
      return result;
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  async validate(signal: AbortSignal): Promise<number | null> {
    const { child } = this.#running();
    if (signal.aborted) return null;
    const { id, answer } = child.send({ kind: 'validate' });
    const stop = (): void => child.stop(id);
    signal.addEventListener('abort', stop, { once: true });
    try {
      return await answer;
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  async saveCheckpoint(file: string): Promise<TrainerPosition> {
    return this.#running().child.send({ kind: 'saveCheckpoint', file }).answer;
  }

  async exportWeights(directory: string): Promise<void> {
    await this.#running().child.send({ kind: 'exportWeights', directory }).answer;
  }

  /**
   * Loads what pictures are drawn with where there is no job; a job that is prepared is forgotten.
   *
   * @param model - base model and LoRA
   */
  async openForDrawing(model: DrawingModel): Promise<void> {
    this.#held = null;
    const child = await this.#start();
    await child.send({ kind: 'openForDrawing', model }).answer;
  }

  /**
   * Draws a picture with the job that is prepared or with what {@link openForDrawing} has loaded.
   *
   * @param request - what to draw, and the file to write
   * @param signal - ends it at the sampler's next step; it then rejects with the signal's reason
   */
  async sample(request: SampleRequest, signal: AbortSignal): Promise<void> {
    const child = request.lora === 'job' ? this.#running().child : await this.#start();
    await untilStopped(child, child.send({ kind: 'sample', request }), signal);
  }

  async drawSheet(request: SheetRequest, signal: AbortSignal): Promise<void> {
    const { child } = this.#running();
    await untilStopped(child, child.send({ kind: 'drawSheet', request }), signal);
  }

  async kill(): Promise<void> {
    this.#held = null;
    await this.#child?.kill();
  }

  /** Process id of the trainer, or null while there is none. */
  get pid(): number | null {
    return this.#child?.failure === null ? (this.#child.pid ?? null) : null;
  }

  /** The process, once it has begun; the one before has ended by then. */
  async #start(): Promise<TrainerChild> {
    const before = this.#child;
    if (before?.failure === null) return before;
    await before?.kill();
    // Two would share the GPU; and where one hangs in its driver, the next one will too.
    if (before?.isGone === false) throw before.failure;
    // Another call may have waited for the same end.
    if (this.#child !== before) return this.#start();
    this.#held = null;
    this.#child = this.#begin();
    return this.#child;
  }

  #begin(): TrainerChild {
    const { device, threadCount, logger, entryFile = ENTRY_FILE, killLimitMs } = this.#options;
    const { cudaVisibleDevices = null, faultPoints = null } = this.#options;
    const environment = {
      // Threads of OpenMP that spin while they wait slow a step down twentyfold as soon as anything else wants the
      // cores; threads that sleep cost next to nothing on an idle machine.
      OMP_WAIT_POLICY: 'passive',
      // It may come from a file that no library has seen.
      ...(cudaVisibleDevices !== null && { CUDA_VISIBLE_DEVICES: cudaVisibleDevices }),
    };
    const options = { device, hadGpu: this.#ranOn === 'cuda', threadCount, faultPoints };
    const child = new TrainerChild(entryFile, options, environment, logger, killLimitMs);
    child.device = device === 'auto' ? this.#ranOn : device;
    return child;
  }

  #running(): { child: TrainerChild; held: { jobId: string; position: TrainerPosition } } {
    const child = this.#child;
    const held = this.#held;
    if (child?.failure) throw child.failure;
    if (child === null || held === null) {
      throw new GpuFaultError('The trainer holds no job any more: prepare it again from its last checkpoint.');
    }
    return { child, held };
  }
}

/** The end of a drawing; rejects with the signal's reason when that ended it. */
async function untilStopped(
  child: TrainerChild,
  { id, answer }: SentCommand<{ stopped: boolean }>,
  signal: AbortSignal,
): Promise<void> {
  const stop = (): void => child.stop(id);
  signal.addEventListener('abort', stop, { once: true });
  if (signal.aborted) stop();
  try {
    if ((await answer).stopped) throwIfAborted(signal);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

function throwIfAborted(signal: AbortSignal): void {
  if (!signal.aborted) return;
  throw signal.reason instanceof Error ? signal.reason : new CancelledError('The work was called off.');
}
