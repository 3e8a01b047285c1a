// Started by addon.test.ts: begins a training and ends the process in the middle of it.
import { Worker, isMainThread, workerData } from 'node:worker_threads';
import { loadAddon } from '../../../native/index.ts';
import type { NativeImage, NativeTrainer } from '../../../native/native.ts';
import { trainingConfig } from '../../support/training-config.ts';

const SIDE_PX = 64;

async function startTraining(directory: string): Promise<NativeTrainer> {
  const addon = loadAddon();
  const trainer = new addon.Trainer({ device: 'cpu', threadCount: 1 });
  await trainer.loadBaseModel({ directory, mixedPrecision: 'no', lora: null });
  const image: NativeImage = {
    name: 'a.png',
    widthPx: SIDE_PX,
    heightPx: SIDE_PX,
    pixels: new Uint8Array(SIDE_PX * SIDE_PX * 3),
    tokenIds: new Int32Array(77),
  };
  const config = trainingConfig({ seed: 1, dropout: 0, learningRate: 1e-3, weightDecay: 0, epochs: 1_000_000 });
  await trainer.startJob({ config, images: [image], validationImages: [], emptyTokenIds: image.tokenIds });
  return trainer;
}

/** Trains for ever; resolves after the first few steps. */
async function reachMiddle(directory: string): Promise<void> {
  const trainer = await startTraining(directory);
  await new Promise<void>((resolve, reject) => {
    trainer.train(1_000_000, ({ step }) => step === 3 && resolve()).catch(reject);
  });
}

if (!isMainThread) {
  await reachMiddle(workerData as string);
  process.exit();
}

const [directory = '', scenario] = process.argv.slice(2);
if (scenario === 'exit') {
  await reachMiddle(directory);
  console.log('training');
  process.exit(0);
} else if (scenario === 'worker') {
  const worker = new Worker(new URL(import.meta.url), { workerData: directory });
  await new Promise((resolve, reject) => worker.once('exit', resolve).once('error', reject));
  console.log('worker ended');
} else {
  await startTraining(directory);
  console.log('idle');
}
