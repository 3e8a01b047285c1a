import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { GpuFaultError, InternalError } from '../../common/errors.ts';
import { faultPoint } from '../../common/fault-point.ts';
import type {
  SampleRequest,
  SheetRequest,
  StepReport,
  TrainerJob,
  TrainerPosition,
  TrainerRuntime,
} from '../../common/trainer.ts';
import type { MixedPrecision } from '../../common/types.ts';
import type { NativeAddon, NativeImage, NativeTrainer } from '../native.ts';
import { type TrainingPicture, readDataset } from './dataset.ts';
import type { SizePx } from './aspect-buckets.ts';
import { composeSheet, pictureSize, rowsOf } from './contact-sheet.ts';
import { holdOut } from './held-out-pictures.ts';
import type { DrawingModel, TrainerProcessArguments } from './messages.ts';
import { writePng } from './picture.ts';
import { type CaptionTokenizer, loadTokenizer } from './tokenizer.ts';

/** A loaded base model and its tokenizer. */
interface LoadedBase {
  /** Directory, precision and LoRA: the model is loaded anew only when one of them changes. */
  key: string;
  tokenizer: CaptionTokenizer;
}

/** The task that a job belongs to; see `standAt`, which makes the ids. */
function taskOf({ jobId }: TrainerJob): string {
  return jobId.split('/')[0] ?? jobId;
}

/**
 * The trainer's side of the commands: what runs in the trainer process, around the addon. One command at a time; only
 * {@link TrainerServer.stop} may come in between.
 */
export class TrainerServer {
  readonly #addon: NativeAddon;
  readonly #device: 'cpu' | 'cuda';
  readonly #threadCount: number;
  readonly #trainer: NativeTrainer;
  #base: LoadedBase | null = null;
  #job: TrainerJob | null = null;
  /** Captions of the job's pictures, in their order. */
  #captions: string[] = [];
  /** In which the job's pictures are trained, in their order. */
  #sizes: SizePx[] = [];
  #stopped = false;

  /**
   * @param addon - the native addon
   * @param options - device and threads of this process
   * @throws GpuFaultError when there was a GPU and it is gone
   */
  constructor(addon: NativeAddon, options: TrainerProcessArguments) {
    this.#addon = addon;
    const hasGpu = addon.runtimeInfo().gpuName !== null;
    if (options.hadGpu && !hasGpu) {
      throw new GpuFaultError(
        'The GPU of this machine is gone. The job goes on elsewhere; check nvidia-smi and dmesg, and restart the machine.',
      );
    }
    this.#device = options.device === 'auto' ? (hasGpu ? 'cuda' : 'cpu') : options.device;
    this.#threadCount = options.threadCount;
    this.#trainer = new addon.Trainer({ device: this.#device, threadCount: options.threadCount });
  }

  /** What this process runs on. */
  runtime(): TrainerRuntime {
    const { torch, gpuName, gpuMemoryMiB } = this.#addon.runtimeInfo();
    const onGpu = this.#device === 'cuda';
    return {
      device: this.#device,
      gpuName: onGpu ? gpuName : null,
      gpuMemoryMiB: onGpu ? gpuMemoryMiB : null,
      torch,
      threadCount: this.#threadCount,
      mixedPrecisionDefault: onGpu ? 'fp16' : 'no',
    };
  }

  /** See `Trainer.prepare` in `common/trainer.ts`. Pictures are read first: their faults are the cheapest to find. */
  async prepare(job: TrainerJob, checkpointFile: string | null): Promise<TrainerPosition> {
    this.#job = null;
    const { fallbackCaption, config } = job;
    const { resolutionPx, resizeMode, triggerWord } = config;
    const options = { fallbackCaption, resolutionPx, resizeMode, triggerWord };
    const { kept, heldOut } = holdOut(await readDataset(job.imageDirectory, options), config);
    const taskId = taskOf(job);
    await faultPoint('trainer:load', taskId);
    const { tokenizer } = await this.#loadBase(job.baseModelDirectory, config.mixedPrecision, null);
    await faultPoint('trainer:encode', taskId);
    const toImage = ({ name, widthPx, heightPx, pixels, caption }: TrainingPicture): NativeImage => {
      return { name, widthPx, heightPx, pixels, tokenIds: tokenizer.encode(caption) };
    };
    const images = kept.map(toImage);
    const validationImages = heldOut.map(toImage);
    await this.#trainer.startJob({ config, images, validationImages, emptyTokenIds: tokenizer.encode('') });
    if (checkpointFile !== null) await faultPoint('trainer:restore', taskId);
    const fresh = { epochsRun: 0, microStepsRun: 0, optimizerStepsRun: 0 };
    const position = checkpointFile === null ? fresh : await this.#trainer.restore(checkpointFile);
    this.#job = job;
    this.#captions = kept.map(({ caption }) => caption);
    this.#sizes = kept.map(({ widthPx, heightPx }) => ({ widthPx, heightPx }));
    return position;
  }

  /** Trains until `untilEpoch` epochs are done or {@link stop}. */
  async train(
    untilEpoch: number,
    onStep: (report: StepReport) => void,
  ): Promise<{ position: TrainerPosition; stopped: boolean }> {
    this.#heldJob();
    return this.#trainer.train(untilEpoch, onStep);
  }

  /** Measures the run's result on the held-out pictures; null when {@link stop} ended it first. */
  async validate(): Promise<number | null> {
    this.#heldJob();
    return this.#trainer.validate();
  }

  /** Makes a running {@link train}, {@link validate}, {@link sample} or {@link drawSheet} return at the next step. */
  stop(): void {
    this.#stopped = true;
    this.#trainer.stop();
  }

  /** Writes the run's state. */
  async saveCheckpoint(file: string): Promise<TrainerPosition> {
    await faultPoint('trainer:save', taskOf(this.#heldJob()));
    return this.#trainer.saveCheckpoint(file);
  }

  /** Writes the weights in all formats. */
  async exportWeights(directory: string): Promise<void> {
    const job = this.#heldJob();
    await faultPoint('trainer:export', taskOf(job));
    const { resolutionPx } = job.config;
    await this.#trainer.exportWeights({ directory, baseModelName: job.baseModelName, resolutionPx });
  }

  /** Loads a base model, and the LoRA that `sample` draws with as `file`. */
  async openForDrawing({ baseModelDirectory, mixedPrecision, lora }: DrawingModel): Promise<void> {
    this.#job = null;
    await this.#loadBase(baseModelDirectory, mixedPrecision, lora);
  }

  /** Draws one picture and writes it as PNG. */
  async sample(request: SampleRequest): Promise<{ stopped: boolean }> {
    this.#stopped = false;
    return { stopped: !(await this.#draw(request)) };
  }

  /** Draws what is missing of a contact sheet and composes it. */
  async drawSheet({
    prompts,
    seed,
    sidePx,
    epoch,
    directory,
    file,
    ...settings
  }: SheetRequest): Promise<{ stopped: boolean }> {
    this.#stopped = false;
    const { config } = this.#heldJob();
    const size = pictureSize(this.#sizes, sidePx);
    const common = { ...settings, negativePrompt: '', ...size };
    const rows = rowsOf(prompts, seed, directory, { captions: this.#captions, triggerWord: config.triggerWord });
    await mkdir(directory, { recursive: true });
    for (const { baseFile, currentFile, ...row } of rows) {
      const base: SampleRequest = { ...common, ...row, lora: 'none', file: baseFile };
      const current: SampleRequest = { ...common, ...row, lora: 'job', file: currentFile };
      if (!existsSync(baseFile) && !(await this.#draw(base))) return { stopped: true };
      if (!(await this.#draw(current))) return { stopped: true };
    }
    await composeSheet(rows, size, `epoch ${epoch}/${config.epochs}`, file);
    return { stopped: false };
  }

  /** False when it was stopped. */
  async #draw(request: SampleRequest): Promise<boolean> {
    if (this.#base === null) throw new InternalError('No base model is loaded: prepare a job first.');
    if (this.#stopped) return false;
    const { tokenizer } = this.#base;
    const { prompt, negativePrompt, file, ...options } = request;
    const picture = await this.#trainer.sample({
      ...options,
      tokenIds: tokenizer.encode(prompt),
      negativeTokenIds: tokenizer.encode(negativePrompt),
    });
    if (picture === null) return false;
    await writePng(picture, file);
    return true;
  }

  #heldJob(): TrainerJob {
    if (this.#job === null) throw new InternalError('The trainer holds no job: prepare one first.');
    return this.#job;
  }

  async #loadBase(directory: string, mixedPrecision: MixedPrecision, lora: string | null): Promise<LoadedBase> {
    const key = JSON.stringify([directory, mixedPrecision, lora]);
    if (this.#base?.key === key) return this.#base;
    this.#base = null;
    const info = await this.#trainer.loadBaseModel({ directory, mixedPrecision, lora });
    const tokenizer = await loadTokenizer(join(directory, 'tokenizer'), info.textTokenCount);
    this.#base = { key, tokenizer };
    return this.#base;
  }
}
