import { ModelLoadFailedError } from '../../common/errors.ts';
import { WANTED } from '../model-files.ts';
import type { SafetensorsHeader, TensorEntry } from './header.ts';
import type { WeightKey } from './key-list.ts';
import { TEXT_LEVEL, TEXT_PREFIX } from './text-keys.ts';
import { UNET_PREFIX } from './unet-keys.ts';
import { VAE_PREFIX } from './vae-keys.ts';

/** Types that the trainer reads weights in. */
const FLOATS = new Set(['F64', 'F32', 'F16', 'BF16']);

/** In the three parts, but no weights of theirs: the loss of the VAE's training, constants, and CLIP's other half. */
const LEFTOVERS =
  /^first_stage_model\.(loss|model_ema)\.|\.position_ids$|^cond_stage_model\.transformer\.(text_projection|logit_scale)/;

/** Names that an error lists. */
const SHOWN_NAMES = 4;

/** One tensor of a file to be written, and where its bytes are now. */
export interface PlannedTensor {
  name: string;
  shape: readonly number[];
  source: TensorEntry;
}

/** Finds the wanted weights in a single file, and remembers what was not found and what was not wanted. */
export class KeyMatcher {
  readonly #header: SafetensorsHeader;
  readonly #name: string;
  readonly #used = new Set<string>();
  readonly #missing: string[] = [];
  readonly #misshapen: string[] = [];

  /**
   * @param header - of the file
   * @param name - how the model is called in errors
   */
  constructor(header: SafetensorsHeader, name: string) {
    this.#header = header;
    this.#name = name;
  }

  /**
   * @param keys - the weights of one part
   * @returns those that are there; {@link finish} tells of the others
   */
  match(keys: readonly WeightKey[]): PlannedTensor[] {
    return keys.flatMap(({ ldm, diffusers, shape }) => {
      const found = this.#find(ldm);
      if (found === null) return [];
      if (!FLOATS.has(found.dtype) || !isSameShape(found.shape, shape)) {
        this.#misshapen.push(`${ldm} (${found.dtype} ${found.shape.join('x')} instead of ${shape.join('x')})`);
      }
      return [{ name: diffusers, shape, source: found }];
    });
  }

  /**
   * Ends the search.
   *
   * @returns names of tensors that belong to none of the parts
   * @throws ModelLoadFailedError when something is missing, has another shape, or belongs to another architecture
   */
  finish(): string[] {
    const rest = [...this.#header.tensors.keys()].filter((key) => !this.#used.has(key) && !LEFTOVERS.test(key));
    const isInPart = (key: string) => [UNET_PREFIX, VAE_PREFIX, TEXT_PREFIX].some((part) => key.startsWith(`${part}.`));
    const faults = [
      listed('lacks', this.#missing),
      listed('holds what Stable Diffusion 1.x does not have:', rest.filter(isInPart)),
      listed('holds tensors of a type or shape that does not fit:', this.#misshapen),
    ].filter((fault) => fault !== '');
    if (faults.length > 0) {
      throw new ModelLoadFailedError(
        `The base model ${this.#name} ${faults.join('; it ')}. It is damaged or of another architecture: get it again, or name another. ${WANTED}`,
      );
    }
    return rest;
  }

  /** Early single files leave out one level of the text encoder's names. */
  #find(ldm: string): TensorEntry | null {
    for (const key of [ldm, ldm.replace(`${TEXT_PREFIX}.${TEXT_LEVEL}.`, `${TEXT_PREFIX}.`)]) {
      const entry = this.#header.tensors.get(key);
      if (entry === undefined) continue;
      this.#used.add(key);
      return entry;
    }
    this.#missing.push(ldm);
    return null;
  }
}

/** A 1 x 1 convolution holds the bytes of a matrix: LDM has the former in the VAE's attention, diffusers the latter. */
function isSameShape(shape: readonly number[], wanted: readonly number[]): boolean {
  const isMatrix = wanted.length === 2 && shape.length === 4;
  const text = (isMatrix ? [...wanted, 1, 1] : wanted).join('x');
  return shape.join('x') === text;
}

/** The first few names after some words; empty where there are no names. */
function listed(words: string, names: readonly string[]): string {
  if (names.length === 0) return '';
  const more = names.length > SHOWN_NAMES ? ` and ${names.length - SHOWN_NAMES} more` : '';
  return `${words} ${names.slice(0, SHOWN_NAMES).join(', ')}${more}`;
}
