import { ImageInvalidError, TooFewImagesError } from '../common/errors.ts';
import { trainingConfigFor } from '../common/training-config.ts';
import type { PartialTrainingConfig } from '../common/training-config.ts';
import type { TrainingConfig } from '../common/types.ts';
import { type DataReport, inspectDirectory } from '../native/trainer/data-report.ts';
import { invalidMessage, listPictures } from '../native/trainer/dataset.ts';
import { LOCAL_PICTURE_LIMITS } from '../native/trainer/picture.ts';

/**
 * Looks at a directory of pictures as `brushwork train` would train on it, without a trainer.
 *
 * @param images - the directory
 * @param recipe - what the service's configuration and `--config` set
 * @param fallbackCaption - of a picture without a text file
 * @returns the report, and the configuration (but for the device's precision)
 * @throws TooFewImagesError when it holds no picture, or too few to hold some out; ImageInvalidError when it can't be read
 */
export async function lookAtPictures(
  images: string,
  recipe: PartialTrainingConfig,
  fallbackCaption: string,
): Promise<{ report: DataReport; config: TrainingConfig }> {
  const nothingRequested = { epochs: null, learningRate: null, batchSize: null };
  const imageCount = (await listPictures(images)).length;
  if (imageCount === 0) throw new TooFewImagesError(`${images} holds no picture: put .jpg, .png or .webp files there.`);
  const config = trainingConfigFor(nothingRequested, recipe, { imageCount, mixedPrecisionDefault: 'no' });
  const { resolutionPx, resizeMode, triggerWord } = config;
  const limits = LOCAL_PICTURE_LIMITS;
  const report = await inspectDirectory(images, { resolutionPx, resizeMode, triggerWord, fallbackCaption, limits });
  return { report, config };
}

/**
 * What a training says of its pictures in one line, before anything that takes long.
 *
 * @param report - see {@link lookAtPictures}
 * @throws ImageInvalidError naming every picture that can't be used
 */
export function shortReport({ pictures, doubts }: DataReport): string {
  const faults = pictures.flatMap(({ name, faults: [first] }) => (first === undefined ? [] : [`${name} ${first}`]));
  if (faults.length > 0) throw new ImageInvalidError(invalidMessage(faults, pictures.length));
  const doubtful = pictures.filter(({ doubts: own }) => own.length > 0).length;
  if (doubtful === 0 && doubts.length === 0) return `${pictures.length} pictures`;
  const about = doubtful === 0 ? 'something' : `${doubtful} of them`;
  return `${pictures.length} pictures, ${about} doubtful: brushwork inspect tells why`;
}
