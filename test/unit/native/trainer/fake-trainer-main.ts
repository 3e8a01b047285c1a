// A trainer process around a fake addon. The job's seed chooses what happens, see `SCENARIOS` in trainer-process.test.ts.
import { existsSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { CheckpointIncompatibleError, GpuFaultError, LossNotFiniteError } from '../../../../common/errors.ts';
import type {
  NativeAddon,
  NativeJob,
  NativePosition,
  NativeSampleOptions,
  NativeStepReport,
  NativeTrainResult,
  NativeTrainer,
} from '../../../../native/native.ts';
import { serveTrainer } from '../../../../native/trainer/serve.ts';

const STEPS_PER_EPOCH = 100;

class FakeTrainer implements NativeTrainer {
  #seed = 0;
  #step = 0;
  #stopped = false;
  #loads = 0;

  async loadBaseModel() {
    this.#loads++;
    process.stdout.write(`base model loaded ${this.#loads}\n`);
    return {
      unetParameterCount: 1,
      loraModuleCount: 1,
      vaeScaleFactorPx: 8,
      textTokenCount: 77,
      predictionType: 'epsilon' as const,
    };
  }

  async startJob(job: NativeJob): Promise<void> {
    if (job.config.seed === 6) await sleep(60_000);
    this.#seed = job.config.seed;
    this.#step = 0;
  }

  async restore(file: string): Promise<NativePosition> {
    if (file.endsWith('bad.safetensors')) throw new CheckpointIncompatibleError('It has rank 4, the job wants 8.');
    this.#step = 2 * STEPS_PER_EPOCH;
    return this.#position();
  }

  async train(untilEpoch: number, onStep: (report: NativeStepReport) => void): Promise<NativeTrainResult> {
    this.#stopped = false;
    while (this.#step < untilEpoch * STEPS_PER_EPOCH && !this.#stopped) {
      if (this.#seed !== 1) await sleep(2);
      onStep({ step: this.#step, epoch: 0, loss: 0.5, timesteps: [1], learningRate: 1e-4, durationMs: 2 });
      this.#step++;
      if (this.#step === 5) await this.#fail();
    }
    return { position: this.#position(), stopped: this.#stopped };
  }

  async #fail(): Promise<void> {
    if (this.#seed === 2) process.kill(process.pid, 'SIGSEGV');
    if (this.#seed === 3) {
      process.stderr.write("terminate called after throwing an instance of 'std::bad_alloc'\n");
      process.kill(process.pid, 'SIGABRT');
    }
    if (this.#seed === 4) throw new LossNotFiniteError('The loss of step 5 is NaN.');
    if (this.#seed === 7) throw new GpuFaultError('CUDA: an illegal memory access was encountered.');
    if (this.#seed === 5) process.kill(process.pid, 'SIGKILL');
    if (this.#seed === 9) await sleep(60_000);
    if (this.#seed >= 2 && this.#seed <= 5) await sleep(10_000);
  }

  async validate(): Promise<number | null> {
    this.#stopped = false;
    for (let pass = 0; pass < (this.#seed === 8 ? 1000 : 1); pass++) {
      await sleep(2);
      if (this.#stopped) return null;
    }
    return 0.25;
  }

  stop(): void {
    this.#stopped = true;
  }

  async saveCheckpoint(file: string): Promise<NativePosition> {
    writeFileSync(file, String(this.#step));
    return this.#position();
  }

  async exportWeights(): Promise<void> {
    await Promise.resolve();
  }

  async sample({ stepCount }: NativeSampleOptions) {
    this.#stopped = false;
    for (let step = 0; step < stepCount && !this.#stopped; step++) await sleep(2);
    if (this.#stopped) return null;
    return { widthPx: 8, heightPx: 8, pixels: new Uint8Array(8 * 8 * 3).fill(200) };
  }

  #position(): NativePosition {
    return {
      epochsRun: Math.floor(this.#step / STEPS_PER_EPOCH),
      microStepsRun: this.#step,
      optimizerStepsRun: this.#step,
    };
  }
}

const { CUDA_VISIBLE_DEVICES: gpu } = process.env;
/** A GPU that is named by a path is there as long as that file is. */
const hasGpu = gpu !== undefined && (!gpu.startsWith('/') || existsSync(gpu));

serveTrainer(async (): Promise<NativeAddon> => ({
  Trainer: FakeTrainer,
  writeRandomBaseModel: async () => undefined,
  endWithParent: () => undefined,
  runtimeInfo: () => ({
    torch: 'fake',
    cuda: null,
    gpuName: hasGpu ? `GPU ${gpu}` : null,
    gpuMemoryMiB: null,
  }),
}));
