import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { ModelLoadFailedError } from '../../common/errors.ts';

/** Turns captions into the token ids that a base model's text encoder reads. */
export interface CaptionTokenizer {
  /**
   * @param caption - any text
   * @returns `tokenCount` ids: start, at most `tokenCount` - 2 of the caption, end, padding
   */
  encode(caption: string): Int32Array;
}

/** Splits a caption into words, as CLIP does; transformers' CLIPTokenizer (v5.23.0, models/clip/tokenization_clip.py). */
const WORD_PATTERN =
  "<\\|startoftext\\|>|<\\|endoftext\\|>|'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";

/** What we use of the package's `Tokenizer`: its own declarations do not resolve under `moduleResolution: nodenext`. */
interface Encoder {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  token_to_id(token: string): number | undefined;
}

const EncoderClass = Tokenizer as new (definition: object, config: object) => Encoder;

interface SpecialTokens {
  start: string;
  end: string;
  pad: string;
  unknown: string;
}

/**
 * Loads a base model's CLIP tokenizer: `vocab.json` and `merges.txt`, or the `tokenizer.json` that newer exports hold.
 *
 * @param directory - the model's `tokenizer/` folder
 * @param tokenCount - length of each encoded caption: the text encoder's `max_position_embeddings`
 * @throws ModelLoadFailedError when a file is missing or not what CLIP's tokenizer needs
 */
export async function loadTokenizer(directory: string, tokenCount: number): Promise<CaptionTokenizer> {
  const config = (await readJson(join(directory, 'tokenizer_config.json'))) ?? {};
  const map = (await readJson(join(directory, 'special_tokens_map.json'))) ?? {};
  const special = specialTokens({ ...map, ...config });
  const definition = await readDefinition(directory, special);
  const tokenizer = createTokenizer(definition, directory);
  const idOf = (token: string): number => {
    const id = tokenizer.token_to_id(token);
    if (id === undefined) throw broken(directory, `its vocabulary lacks the special token ${token}`);
    return id;
  };
  const [startId, endId, padId] = [idOf(special.start), idOf(special.end), idOf(special.pad)];
  return {
    encode(caption: string): Int32Array {
      const ids = new Int32Array(tokenCount).fill(padId);
      const content = tokenizer.encode(cleanCaption(caption), { add_special_tokens: false }).ids;
      const kept = content.slice(0, tokenCount - 2);
      ids.set([startId, ...kept, endId]);
      return ids;
    },
  };
}

/** Half a surrogate pair is no text; a final sigma is no letter of its own in CLIP's lower case (JavaScript's is). */
function cleanCaption(caption: string): string {
  return caption.toWellFormed().replaceAll('Σ', 'σ');
}

function createTokenizer(definition: object, directory: string): Encoder {
  try {
    return new EncoderClass(definition, {});
  } catch (error) {
    throw broken(directory, error instanceof Error ? error.message : String(error), error);
  }
}

async function readDefinition(directory: string, special: SpecialTokens): Promise<object> {
  const vocabulary = await readJson(join(directory, 'vocab.json'));
  const merges = await readText(join(directory, 'merges.txt'));
  if (vocabulary !== null && merges !== null) return clipDefinition(vocabulary, mergeLines(merges), special);
  const definition = await readJson(join(directory, 'tokenizer.json'));
  if (definition !== null) return definition;
  throw broken(directory, 'it holds neither vocab.json with merges.txt nor tokenizer.json');
}

/** `merges.txt` without its `#version` line and empty lines. */
function mergeLines(text: string): string[] {
  return text.split(/\r?\n/).filter((line, index) => line !== '' && !(index === 0 && line.startsWith('#version')));
}

/** A `tokenizer.json` as transformers' CLIPTokenizer (v5.23.0) builds it from `vocab.json` and `merges.txt`. */
function clipDefinition(vocabulary: Record<string, unknown>, merges: string[], special: SpecialTokens): object {
  const added = [...new Set([special.start, special.end, special.pad])].map((content) => ({
    id: vocabulary[content],
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }));
  return {
    version: '1.0',
    added_tokens: added.filter(({ id }) => id !== undefined),
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'NFC' },
        { type: 'Replace', pattern: { Regex: '\\s+' }, content: ' ' },
        { type: 'Lowercase' },
      ],
    },
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Split', pattern: { Regex: WORD_PATTERN }, behavior: 'Removed', invert: true },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
      ],
    },
    post_processor: null,
    decoder: null,
    model: {
      type: 'BPE',
      unk_token: special.unknown,
      continuing_subword_prefix: '',
      end_of_word_suffix: '</w>',
      fuse_unk: false,
      vocab: vocabulary,
      merges,
    },
  };
}

/** Special tokens by role, as strings or as `{ "content": … }`; CLIP's own where the files name none. */
function specialTokens(roles: Record<string, unknown>): SpecialTokens {
  const content = (role: string): string | null => {
    const token = roles[role];
    if (typeof token === 'string') return token;
    if (typeof token === 'object' && token !== null && 'content' in token && typeof token.content === 'string') {
      return token.content;
    }
    return null;
  };
  const end = content('eos_token') ?? '<|endoftext|>';
  return {
    start: content('bos_token') ?? '<|startoftext|>',
    end,
    pad: content('pad_token') ?? end,
    unknown: content('unk_token') ?? end,
  };
}

async function readText(file: string): Promise<string | null> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null;
    throw new ModelLoadFailedError(`The tokenizer file ${file} can't be read.`, { cause: error });
  }
}

async function readJson(file: string): Promise<Record<string, unknown> | null> {
  const text = await readText(file);
  if (text === null) return null;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ModelLoadFailedError(`${file} is not valid JSON: fetch the base model again.`, { cause: error });
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new ModelLoadFailedError(`${file} must hold a JSON object: fetch the base model again.`);
}

function broken(directory: string, reason: string, cause?: unknown): ModelLoadFailedError {
  return new ModelLoadFailedError(
    `The tokenizer in ${directory} can't be used: ${reason}. Fetch the base model again, or name another.`,
    { cause },
  );
}
