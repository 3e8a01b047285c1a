import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { historyToJSON } from '@temporalio/common/lib/proto-utils.js';
import type { Scene } from './scene.ts';

const ROOT = path.join(import.meta.dirname, '../../../.brushwork/faults');

/**
 * Keeps what there is to see of a case that went wrong: what was said, the history of its newest run, the statuses, and the
 * logs of all processes until then.
 *
 * @param scene - of a job that has ended
 * @param name - of the directory, in which older evidence is overwritten
 * @param words - what went wrong
 * @returns the directory
 */
export async function keepEvidence(scene: Scene, name: string, words: readonly string[]): Promise<string> {
  const directory = path.join(ROOT, name.replaceAll(/[^\w.@-]+/g, '-'));
  mkdirSync(directory, { recursive: true });
  const write = (file: string, text: string) => writeFileSync(path.join(directory, file), `${text}\n`);
  write('violations.txt', words.join('\n'));
  write('statuses.jsonl', scene.samples.map((sample) => JSON.stringify(sample)).join('\n'));
  for (const worker of scene.world.workers) write(`process-${worker.pid}.log`, worker.log());
  const history = await scene.handle.fetchHistory().catch(() => null);
  if (history !== null) write('history.json', historyToJSON(history));
  return directory;
}
