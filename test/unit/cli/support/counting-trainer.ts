import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { GpuFaultError } from '../../../../common/errors.ts';
import type { SheetRequest, StepReport, Trainer, TrainerPosition } from '../../../../common/trainer.ts';

const STEPS_PER_EPOCH = 2;

/** Counts steps instead of training, and writes the count where the weights would go. */
export class CountingTrainer implements Trainer {
  readonly checkpointsAt: number[] = [];
  readonly validatedAt: number[] = [];
  failsAtStep = -1;
  onSheet: (steps: number) => void = () => undefined;
  validationLossAt = (epoch: number): number => 1 / (1 + epoch);
  onValidate: (epoch: number) => void = () => undefined;
  #steps = 0;

  runtime(): never {
    throw new Error('not used');
  }

  async prepare(_job: unknown, checkpointFile: string | null): Promise<TrainerPosition> {
    this.#steps = checkpointFile === null ? 0 : Number(readFileSync(checkpointFile, 'utf8'));
    return this.position();
  }

  position(): TrainerPosition {
    return {
      epochsRun: Math.floor(this.#steps / STEPS_PER_EPOCH),
      microStepsRun: this.#steps,
      optimizerStepsRun: this.#steps,
    };
  }

  async train(untilEpoch: number, onStep: (report: StepReport) => void, signal: AbortSignal) {
    while (this.#steps < untilEpoch * STEPS_PER_EPOCH && !signal.aborted) {
      const step = this.#steps++;
      if (step === this.failsAtStep) throw new GpuFaultError('The trainer process ended by SIGSEGV.');
      const epoch = Math.floor(step / STEPS_PER_EPOCH);
      onStep({ step, epoch, loss: 1 / (step + 1), timesteps: [step], learningRate: 1e-4, durationMs: 1 });
    }
    return { position: this.position(), stopped: signal.aborted };
  }

  async validate(signal: AbortSignal): Promise<number | null> {
    const { epochsRun } = this.position();
    this.validatedAt.push(epochsRun);
    this.onValidate(epochsRun);
    return signal.aborted ? null : this.validationLossAt(epochsRun);
  }

  async saveCheckpoint(file: string): Promise<TrainerPosition> {
    this.checkpointsAt.push(this.#steps);
    writeFileSync(file, String(this.#steps));
    return this.position();
  }

  async exportWeights(directory: string): Promise<void> {
    writeFileSync(path.join(directory, 'lora_weights.safetensors'), String(this.#steps));
  }

  async drawSheet({ file, directory }: SheetRequest): Promise<void> {
    this.onSheet(this.#steps);
    mkdirSync(directory, { recursive: true });
    writeFileSync(file, String(this.#steps));
  }

  kill(): Promise<void> {
    return Promise.resolve();
  }
}
