import { createHash } from 'node:crypto';
import { trainingConfigJson } from '../common/training-config.ts';
import type { TrainingConfig } from '../common/types.ts';

/** What a training run is made of. */
export interface RunContent {
  config: TrainingConfig;
  /** Of the base model. */
  baseModelFingerprint: string;
  pictures: readonly { name: string; sha256: string; captionSha256: string }[];
}

/**
 * SHA-256 over everything that decides what the weights become: equal fingerprints mean that a checkpoint of one run
 * can be continued by the other.
 *
 * @returns lower-case hex
 */
export function runFingerprint({ config, baseModelFingerprint, pictures }: RunContent): string {
  const decisive = trainingConfigJson(config);
  delete decisive['gradient_checkpointing'];
  const sorted = [...pictures].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  const content = [
    'brushwork-run-1',
    decisive,
    baseModelFingerprint,
    sorted.map(({ name, sha256, captionSha256 }) => [name, sha256, captionSha256]),
  ];
  return createHash('sha256').update(JSON.stringify(content)).digest('hex');
}
