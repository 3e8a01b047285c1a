import { mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import sharp from 'sharp';
import type { Trainer, TrainerJob } from '../../common/trainer.ts';

/** Left column: the base model; right column: the trained one; a row for each prompt. */
const PROMPTS = ['a landscape photograph of mountains', 'a photograph of a cup of coffee on a wooden table'];
const STEP_COUNT = 8;
const GUIDANCE_SCALE = 5;
const GAP_PX = 8;

/**
 * Draws the same prompts with and without the trained LoRA, from the same noise.
 *
 * @param trainer - holds no other job meanwhile
 * @param job - the job as it was trained
 * @param checkpointFile - its last checkpoint
 * @param file - PNG to write
 * @param signal - ends it
 */
export async function drawPreview(
  trainer: Trainer,
  job: TrainerJob,
  checkpointFile: string,
  file: string,
  signal: AbortSignal,
): Promise<void> {
  const parts = `${file}.parts`;
  await mkdir(parts, { recursive: true });
  await trainer.prepare(job, checkpointFile, signal);
  const sidePx = job.config.resolutionPx;
  const pictures: { input: string; left: number; top: number }[] = [];
  for (const [row, prompt] of PROMPTS.entries()) {
    for (const useLora of [false, true]) {
      signal.throwIfAborted();
      const picture = path.join(parts, `${row}-${useLora ? 'trained' : 'base'}.png`);
      await trainer.sample({
        prompt,
        seed: row,
        stepCount: STEP_COUNT,
        guidanceScale: GUIDANCE_SCALE,
        useLora,
        file: picture,
      });
      const column = useLora ? 1 : 0;
      pictures.push({ input: picture, left: column * (sidePx + GAP_PX), top: row * (sidePx + GAP_PX) });
    }
  }
  const width = 2 * sidePx + GAP_PX;
  const height = PROMPTS.length * (sidePx + GAP_PX) - GAP_PX;
  await sharp({ create: { width, height, channels: 3, background: '#ffffff' } })
    .composite(pictures)
    .removeAlpha()
    .png()
    .toFile(file);
  await rm(parts, { recursive: true });
}
