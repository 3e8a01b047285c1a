import { createHash } from 'node:crypto';
import { TRAINING_CONFIG_KEYS } from '../common/training-config-keys.ts';
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
  const sorted = [...pictures].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  const content = [
    'brushwork-run-1',
    decisiveConfig(config),
    baseModelFingerprint,
    sorted.map(({ name, sha256, captionSha256 }) => [name, sha256, captionSha256]),
  ];
  return createHash('sha256').update(JSON.stringify(content)).digest('hex');
}

/** Without what changes no result, and without keys that came later and are not used: a job keeps its checkpoints when Brushwork learns something. */
function decisiveConfig(config: TrainingConfig): Record<string, unknown> {
  const isDecisive = ([name, value]: [string, unknown]): boolean => {
    const key = TRAINING_CONFIG_KEYS[name];
    if (key?.inFingerprint === 'never') return false;
    return key?.inFingerprint !== 'unless-default' || value !== key.default;
  };
  return Object.fromEntries(Object.entries(trainingConfigJson(config)).filter(isDecisive));
}
