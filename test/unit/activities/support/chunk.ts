import type { TrainEpochChunkInput } from '../../../../common/activity-types.ts';
import { CONFIG } from './pod.ts';
import type { TestPod } from './pod.ts';

/** Pictures of each job: so many steps has an epoch. */
export const PICTURES = 3;

/**
 * The first two epochs of a pod's job.
 *
 * @param pod - with {@link PICTURES} pictures
 * @param overrides - what differs
 */
export function chunkInput(pod: TestPod, overrides: Partial<TrainEpochChunkInput> = {}): TrainEpochChunkInput {
  return {
    ...pod.ids,
    jobDirectory: pod.jobDirectory,
    checkpointFile: null,
    config: CONFIG,
    fromEpoch: 0,
    stepsPerEpoch: PICTURES,
    untilEpoch: 2,
    webhookOrigin: 'https://backend.example',
    ...overrides,
  };
}
