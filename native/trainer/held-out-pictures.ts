import type { TrainingConfig } from '../../common/types.ts';
import { byCodePoint } from './dataset.ts';

/** Number of the random stream that decides which pictures are held out, see docs/training.md. */
const HELD_OUT_STREAM = 16n;

const MASK = (1n << 64n) - 1n;

function mix64(value: bigint): bigint {
  let z = (value + 0x9e3779b97f4a7c15n) & MASK;
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & MASK;
  return z ^ (z >> 31n);
}

function streamSeed(seed: number, stream: bigint, index: number): bigint {
  return mix64(mix64(mix64(BigInt(seed)) ^ stream) ^ BigInt(index));
}

/**
 * Divides pictures into those to train on and those to measure on: the latter are those whose seeds in stream 16, index
 * being the ordinal by name, are the smallest.
 *
 * @param pictures - each once, in any order, more than are held out
 * @param config - of the run
 * @returns both sorted by name
 */
export function holdOut<Picture extends { name: string }>(
  pictures: readonly Picture[],
  { seed, validationPictures }: Pick<TrainingConfig, 'seed' | 'validationPictures'>,
): { kept: Picture[]; heldOut: Picture[] } {
  const sorted = [...pictures].sort((a, b) => byCodePoint(a.name, b.name));
  const drawn = sorted.map((picture, ordinal) => ({ picture, draw: streamSeed(seed, HELD_OUT_STREAM, ordinal) }));
  drawn.sort((a, b) => (a.draw < b.draw ? -1 : 1));
  const chosen = new Set(drawn.slice(0, validationPictures).map(({ picture }) => picture));
  return {
    kept: sorted.filter((picture) => !chosen.has(picture)),
    heldOut: sorted.filter((picture) => chosen.has(picture)),
  };
}
