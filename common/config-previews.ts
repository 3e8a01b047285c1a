import type { Sources } from './config-sections.ts';
import type { PreviewConfig } from './config-types.ts';

/** Sides are multiples of this many pixels: what the UNet's four levels and the VAE halve. */
const SIDE_STEP_PX = 64;

/** Section `previews`. */
export function readPreviews({ root }: Pick<Sources, 'root'>): PreviewConfig {
  const section = root.section('previews');
  const previews: PreviewConfig = {
    enabled: section.flag('enabled'),
    sheet: {
      prompts: section.texts('prompts'),
      seed: section.integer('seed', 0, Number.MAX_SAFE_INTEGER - 100),
      sampler: section.choice('sampler', ['dpm++', 'ddim']),
      stepCount: section.integer('steps', 1, 100),
      guidanceScale: section.number('guidance', 0, 100),
      sidePx: section.integerOrNone('size', SIDE_STEP_PX, 1024),
    },
    maxShare: section.number('maxShare', 0, 1),
    timeLimitMs: section.durationMs('timeLimit', 1),
  };
  const { prompts, sidePx } = previews.sheet;
  if (prompts.length < 1 || prompts.length > 16 || prompts.some((prompt) => prompt.trim() === '')) {
    section.fault('prompts', 'must be 1 to 16 texts that say something; to draw none, set enabled to false');
  }
  if (sidePx !== null && sidePx % SIDE_STEP_PX !== 0) {
    section.fault(
      'size',
      `is ${sidePx}: set it to a multiple of ${SIDE_STEP_PX}, or to none for the training resolution`,
    );
  }
  section.finish();
  return previews;
}
