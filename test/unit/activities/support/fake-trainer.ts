import { createHash } from 'node:crypto';
import { mkdir, readFile, readdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { GpuFaultError } from '../../../../common/errors.ts';
import type {
  SheetRequest,
  StepReport,
  Trainer,
  TrainerJob,
  TrainerPosition,
  TrainerRuntime,
} from '../../../../common/trainer.ts';

interface State {
  epochsRun: number;
  microStepsRun: number;
  weights: string;
}

/**
 * A trainer without mathematics: its weights are a hash chain over the steps, so that they tell exactly which steps were
 * made on which pictures.
 */
export class FakeTrainer implements Trainer {
  /** Time of one step. */
  stepMs = 1;
  /** Called before each step; may throw, or never resolve. */
  onStep: (step: number) => Promise<void> = () => Promise.resolve();
  /** Called by `prepare`. */
  onPrepare: (signal: AbortSignal) => Promise<void> = () => Promise.resolve();
  /** Called by `exportWeights`; may never resolve. */
  onExport: () => Promise<void> = () => Promise.resolve();
  /** Files that `exportWeights` writes besides those that it always does. */
  moreWeights: string[] = [];
  /** Called by `drawSheet`; may throw, or never resolve. */
  onSheet: (signal: AbortSignal) => Promise<void> = () => Promise.resolve();
  /** Called by `validate`; may never resolve. */
  onValidate: () => Promise<void> = () => Promise.resolve();
  /** What `validate` measures after so many epochs. */
  validationLossAt: (epoch: number) => number = (epoch) => 1 / (2 + epoch);
  readonly calls: string[] = [];
  #job: TrainerJob | null = null;
  #pictures: string[] = [];
  #state: State = { epochsRun: 0, microStepsRun: 0, weights: '' };
  #killed = Promise.withResolvers<never>();

  runtime(): Promise<TrainerRuntime> {
    return Promise.resolve({
      device: 'cpu',
      gpuName: null,
      gpuMemoryMiB: null,
      torch: '2.11.0',
      threadCount: 1,
      mixedPrecisionDefault: 'no',
    });
  }

  async prepare(job: TrainerJob, checkpointFile: string | null, signal: AbortSignal): Promise<TrainerPosition> {
    this.calls.push(`prepare ${checkpointFile === null ? 'fresh' : path.basename(checkpointFile)}`);
    this.#killed = Promise.withResolvers<never>();
    this.#killed.promise.catch(() => undefined);
    await Promise.race([this.onPrepare(signal), this.#killed.promise]);
    this.#job = job;
    const names = await readdir(job.imageDirectory);
    this.#pictures = names.filter((name) => !name.endsWith('.txt')).sort();
    const bytes = await Promise.all(names.sort().map((name) => readFile(path.join(job.imageDirectory, name))));
    const data = createHash('sha256').update(Buffer.concat(bytes)).digest('hex');
    this.#state =
      checkpointFile === null
        ? { epochsRun: 0, microStepsRun: 0, weights: data }
        : (JSON.parse(await readFile(checkpointFile, 'utf8')) as State);
    return this.#position();
  }

  position(jobId: string): TrainerPosition | null {
    return this.#job?.jobId === jobId ? this.#position() : null;
  }

  async train(
    untilEpoch: number,
    onStep: (report: StepReport) => void,
    signal: AbortSignal,
  ): Promise<{ position: TrainerPosition; stopped: boolean }> {
    this.calls.push(`train ${this.#state.epochsRun}-${untilEpoch}`);
    if (this.#job === null) throw new GpuFaultError('The trainer holds no job.');
    const stepsPerEpoch = Math.ceil(this.#pictures.length / this.#job.config.batchSize);
    while (this.#state.epochsRun < untilEpoch) {
      if (signal.aborted) return { position: this.#position(), stopped: true };
      const step = this.#state.microStepsRun;
      await Promise.race([this.onStep(step), this.#killed.promise]);
      await Promise.race([sleep(this.stepMs), this.#killed.promise]);
      this.#state.weights = createHash('sha256').update(`${this.#state.weights} ${step}`).digest('hex');
      this.#state.microStepsRun += 1;
      this.#state.epochsRun = Math.floor(this.#state.microStepsRun / stepsPerEpoch);
      const epoch = Math.floor(step / stepsPerEpoch);
      onStep({ step, epoch, loss: 1 / (1 + epoch), timesteps: [1], learningRate: 1e-4, durationMs: this.stepMs });
    }
    return { position: this.#position(), stopped: false };
  }

  async validate(signal: AbortSignal): Promise<number | null> {
    this.calls.push(`validate ${this.#state.epochsRun}`);
    await Promise.race([this.onValidate(), this.#killed.promise]);
    return signal.aborted ? null : this.validationLossAt(this.#state.epochsRun);
  }

  async saveCheckpoint(file: string): Promise<TrainerPosition> {
    await writeFile(file, JSON.stringify(this.#state));
    return this.#position();
  }

  async exportWeights(directory: string): Promise<void> {
    await Promise.race([this.onExport(), this.#killed.promise]);
    const always = ['lora_weights.safetensors', 'kohya.safetensors', 'peft/adapter_model.safetensors'];
    for (const name of [...always, ...this.moreWeights]) {
      await mkdir(path.dirname(path.join(directory, name)), { recursive: true });
      await writeFile(path.join(directory, name), `${name} ${this.#state.weights}`);
    }
  }

  async drawSheet({ file }: SheetRequest, signal: AbortSignal): Promise<void> {
    this.calls.push(`sheet at ${this.#state.epochsRun}`);
    await Promise.race([this.onSheet(signal), this.#killed.promise]);
    await mkdir(path.dirname(file), { recursive: true });
    await writeFile(file, `sheet ${this.#state.weights}`);
  }

  kill(): Promise<void> {
    this.calls.push('kill');
    this.#job = null;
    this.#killed.reject(new GpuFaultError('The trainer was killed.'));
    return Promise.resolve();
  }

  #position(): TrainerPosition {
    const { epochsRun, microStepsRun } = this.#state;
    return { epochsRun, microStepsRun, optimizerStepsRun: microStepsRun };
  }
}
