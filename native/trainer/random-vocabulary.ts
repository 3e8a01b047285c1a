import { byteLetters } from './byte-letters.ts';

/**
 * Words whose letter pairs the vocabulary merges. Any list would do: it only has to give captions of usual length a
 * usual number of tokens.
 */
const WORDS = `a an the of and in on at with by for from to is are
  painting drawing sketch photo photograph picture portrait landscape still life watercolor ink pencil oil canvas
  paper print woodcut etching illustration study abstract style artist color colour light shadow line brush stroke
  red orange yellow green blue violet black white grey brown gold dark bright soft warm cold
  man woman child girl boy face hand eyes hair dress hat people crowd street city town village house church bridge
  tower castle window door garden tree trees forest flower flowers leaf grass field hill hills mountain mountains
  river lake sea water wave waves boat ship beach sky cloud clouds sun moon star night day morning evening sunset
  winter summer spring autumn snow rain storm wind fire horse dog cat bird birds fish cow sheep
  table chair bowl vase fruit apple bread bottle glass book lamp clock music dance
  kitchen market harbor station railway road path corner roof wall shore island valley meadow desert waterfall
  queen king dancer sailor farmer fisherman reader mother father sister brother friend soldier angel dragon
  impressionist expressive detailed colorful minimal vintage modern texture pattern background foreground composition
  beautiful quiet distant golden silver purple orchard blossom reflection horizon afternoon twilight lantern candle
  small large old young two three standing sitting walking looking holding under over near`.split(/\s+/);

/** Number of single-byte tokens: each byte once inside a word and once at its end. */
const BYTE_TOKEN_COUNT = 512;

/** Ids of the two special tokens, the last two of 1024. */
const START_ID = 1022;
const END_ID = 1023;

/** A CLIP vocabulary as its files hold it. */
export interface Vocabulary {
  /** Content of `vocab.json`. */
  ids: Record<string, number>;
  /** Lines of `merges.txt` after its first. */
  merges: string[];
}

/**
 * Makes the byte-level CLIP vocabulary of random base models: 512 byte tokens, then one token for each merge learned
 * from a short English word list, `<|startoftext|>` = 1022 and `<|endoftext|>` = 1023. It is the same on every machine.
 *
 * @returns ids by token, and the merges in the order of their rank
 */
export function createRandomModelVocabulary(): Vocabulary {
  const letters = byteLetters();
  const tokens = [...letters, ...letters.map((letter) => `${letter}</w>`)];
  const merges = learnMerges(WORDS, START_ID - BYTE_TOKEN_COUNT);
  tokens.push(...merges.map(([left, right]) => left + right));
  const ids: Record<string, number> = Object.fromEntries(tokens.map((token, id) => [token, id]));
  ids['<|startoftext|>'] = START_ID;
  ids['<|endoftext|>'] = END_ID;
  return { ids, merges: merges.map((pair) => pair.join(' ')) };
}

/** Byte-pair learning: merges the most frequent neighbours again and again, ties by code point, until none repeats. */
function learnMerges(words: string[], limit: number): [string, string][] {
  let splits = words.map((word) => [...word].map((letter, i) => (i === word.length - 1 ? `${letter}</w>` : letter)));
  const merges: [string, string][] = [];
  const known = new Set<string>();
  while (merges.length < limit) {
    const pair = mostFrequentPair(splits, known);
    if (pair === null) break;
    merges.push(pair);
    known.add(pair.join(''));
    splits = splits.map((parts) => mergePair(parts, pair));
  }
  return merges;
}

function mostFrequentPair(splits: string[][], known: Set<string>): [string, string] | null {
  const counts = new Map<string, number>();
  for (const parts of splits) {
    parts.slice(1).forEach((right, i) => {
      const key = `${parts[i]} ${right}`;
      counts.set(key, (counts.get(key) ?? 0) + 1);
    });
  }
  let best: string | null = null;
  for (const [key, count] of counts) {
    if (known.has(key.replace(' ', ''))) continue;
    const bestCount = best === null ? 0 : (counts.get(best) ?? 0);
    if (best === null || count > bestCount || (count === bestCount && key < best)) best = key;
  }
  return best === null ? null : (best.split(' ') as [string, string]);
}

function mergePair(parts: string[], [left, right]: [string, string]): string[] {
  const merged: string[] = [];
  for (let i = 0; i < parts.length; i++) {
    const matches = parts[i] === left && parts[i + 1] === right;
    merged.push(matches ? left + right : (parts[i] ?? ''));
    if (matches) i++;
  }
  return merged;
}
