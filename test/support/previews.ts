import type { PreviewConfig } from '../../common/config-types.ts';

/** Sheets that are drawn at each checkpoint. */
export const PREVIEWS: PreviewConfig = {
  enabled: true,
  sheet: { prompts: ['{caption}'], seed: 0, sampler: 'dpm++', stepCount: 2, guidanceScale: 5, sidePx: null },
  maxShare: 1,
  timeLimitMs: 10_000,
};
