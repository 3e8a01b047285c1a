import { InvalidRequestError, TooFewImagesError } from './errors.ts';
import { readTrainingConfig, requestedTrainingConfig } from './training-config.ts';
import type { TrainStyleInput } from './types.ts';

/** Fewest pictures that make a style. */
export const MIN_IMAGES = 10;

/** Most pictures of one job. */
export const MAX_IMAGES = 100;

const MAX_URI_LENGTH = 4096;
const MAX_TAGS = 200;
const MAX_TAG_LENGTH = 500;

/**
 * Checks what a job asks for, before any pod is taken. The bridge refuses only what can't become a workflow; the rest is
 * refused by the workflow through this function, since only a workflow can tell the backend.
 *
 * Pure: runs in the workflow sandbox.
 *
 * @param input - as the bridge made it
 * @throws TooFewImagesError with fewer than {@link MIN_IMAGES} pictures
 * @throws InvalidRequestError naming all other faults at once
 */
export function checkJobRequest(input: TrainStyleInput): void {
  const faults: string[] = [];
  if (input.images.length > MAX_IMAGES) {
    faults.push(`${input.images.length} images are too many: send at most ${MAX_IMAGES}`);
  }
  const tooLong = input.images.filter((uri) => uri.length > MAX_URI_LENGTH).length;
  if (tooLong > 0) faults.push(`${tooLong} image URIs are longer than ${MAX_URI_LENGTH} characters`);
  const repeated = input.images.length - new Set(input.images).size;
  if (repeated > 0) faults.push(`${repeated} image URIs are named twice`);
  if (input.tags.length > MAX_TAGS) faults.push(`${input.tags.length} tags are too many: send at most ${MAX_TAGS}`);
  if (input.tags.some((tag) => tag.length > MAX_TAG_LENGTH)) {
    faults.push(`a tag is longer than ${MAX_TAG_LENGTH} characters`);
  }
  faults.push(...readTrainingConfig(requestedTrainingConfig(input.parameters)).faults);
  if (faults.length > 0) throw new InvalidRequestError(`The job can't be trained: ${faults.join('; ')}.`);
  if (input.images.length < MIN_IMAGES) {
    throw new TooFewImagesError(
      `A style needs at least ${MIN_IMAGES} images, but the job names ${input.images.length}: add more and send it again.`,
    );
  }
}
