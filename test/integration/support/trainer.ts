import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pino } from 'pino';
import sharp from 'sharp';
import type { TrainerJob } from '../../../common/trainer.ts';
import type { TrainingConfig } from '../../../common/types.ts';
import { loadAddon } from '../../../native/index.ts';
import { writeRandomBaseModel } from '../../../native/trainer/random-base-model.ts';
import { TrainerProcess } from '../../../native/trainer/trainer-process.ts';
import { trainingConfig } from '../../support/training-config.ts';

export const NEVER = new AbortController().signal;
export const NOTHING = () => undefined;
export const SIDE_PX = 64;

const WEIGHT_FILES = [
  'kohya.safetensors',
  'lora_weights.safetensors',
  'peft/adapter_config.json',
  'peft/adapter_model.safetensors',
];

/** One test's trainer process, beside a tiny base model and three pictures that all tests of a file share. */
export class TrainerScene {
  /** What the trainer logged. */
  readonly lines: string[] = [];
  readonly trainer: TrainerProcess;
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
    const logger = pino({ level: 'debug' }, { write: (line: string) => void this.lines.push(line) });
    this.trainer = new TrainerProcess({ device: 'cpu', threadCount: 1, logger });
  }

  /** A path in the directory that the tests of a file share. */
  inside(...names: string[]): string {
    return path.join(this.#directory, ...names);
  }

  jobOf(changes: Partial<TrainingConfig> = {}, others: Partial<TrainerJob> = {}): TrainerJob {
    return {
      jobId: 'job-1',
      baseModelDirectory: this.inside('model'),
      baseModelName: 'tiny',
      imageDirectory: this.inside('images'),
      fallbackCaption: 'a picture of stripes',
      logLabels: {},
      config: trainingConfig({ seed: 11, learningRate: 1e-3, epochs: 1000, resolutionPx: SIDE_PX, ...changes }),
      ...others,
    };
  }

  /** Exports the weights into a folder, and returns what is in the files. */
  async weightsIn(name: string): Promise<Buffer[]> {
    await this.trainer.exportWeights(this.inside(name));
    return WEIGHT_FILES.map((file) => readFileSync(this.inside(name, file)));
  }
}

/** Makes the model and the pictures for the tests of a `describe`, and hands a scene of its own to each of them. */
export function trainerSceneForEachTest(assign: (scene: TrainerScene) => void): void {
  let directory: string;
  let scene: TrainerScene;

  before(async () => {
    directory = mkdtempSync(path.join(tmpdir(), 'brushwork-trainer-'));
    await writeRandomBaseModel(loadAddon(), path.join(directory, 'model'), 'tiny', 1);
    const images = path.join(directory, 'images');
    mkdirSync(images);
    for (let index = 0; index < 3; index++) {
      const pixels = Buffer.from(Array.from({ length: 80 * 70 * 3 }, (_, i) => (i * (index + 2)) % 256));
      const image = sharp(pixels, { raw: { width: 80, height: 70, channels: 3 } });
      writeFileSync(path.join(images, `${index}.png`), await image.png().toBuffer());
    }
    writeFileSync(path.join(images, '1.txt'), 'sunset over hills');
  });
  after(() => rmSync(directory, { recursive: true }));
  beforeEach(() => {
    scene = new TrainerScene(directory);
    assign(scene);
  });
  afterEach(() => scene.trainer.kill());
}
