import type { JobKeys } from '../common/checkpoint-manifest.ts';

/** The file whose URI the backend is told. */
export const WEIGHTS_FILE = 'lora_weights.safetensors';

/** Beside it where the text encoder is trained; what an earlier training left there must not pass for this one's. */
const OPTIONAL_FOLDER = 'peft_text_encoder/';

/** Below this lie the finished weights of all attempts at a job, until one of them is promoted. */
export function jobStagingPrefix({ styleId, taskId }: JobKeys): string {
  return `staging/style_${styleId}/${taskId}/`;
}

/**
 * Below this lie the finished weights of one attempt.
 *
 * @param unique - differs for each attempt
 */
export function stagingPrefix(job: JobKeys, unique: string): string {
  return `${jobStagingPrefix(job)}${unique}/`;
}

/** Below this lie the published weights of a style. */
export function modelPrefix(styleId: number): string {
  return `models/style_${styleId}/`;
}

/** Below this lie those published weights of a style that not every training has. */
export function optionalModelPrefix(styleId: number): string {
  return `${modelPrefix(styleId)}${OPTIONAL_FOLDER}`;
}
