/** One weight under both names, with the shape that diffusers gives it. */
export interface WeightKey {
  /** In a single file: CompVis' (LDM's) name, with the prefix of its part. */
  ldm: string;
  /** In the safetensors file of its part. */
  diffusers: string;
  shape: readonly number[];
}

/** Where a group of weights lies, under both namings; both empty or without a dot at the end. */
interface Place {
  ldm: string;
  diffusers: string;
}

/** Sides of a layer's weight: outputs, inputs, and those of its kernel. */
type Shape = readonly number[];

/** Collects the weights of one part, layer by layer. */
export class KeyList {
  readonly keys: WeightKey[];
  readonly #place: Place;

  /**
   * @param ldmPrefix - of the part in a single file, e.g. `first_stage_model`
   */
  constructor(ldmPrefix: string, parent: { keys: WeightKey[]; place: Place } | null = null) {
    this.keys = parent?.keys ?? [];
    this.#place = parent?.place ?? { ldm: ldmPrefix, diffusers: '' };
  }

  /** The same list, one level deeper. */
  at(ldm: string, diffusers: string): KeyList {
    const place = { ldm: join(this.#place.ldm, ldm), diffusers: join(this.#place.diffusers, diffusers) };
    return new KeyList('', { keys: this.keys, place });
  }

  /** A single tensor. */
  tensor(ldm: string, diffusers: string, shape: Shape): void {
    this.keys.push({ ldm: join(this.#place.ldm, ldm), diffusers: join(this.#place.diffusers, diffusers), shape });
  }

  /** A layer's weight and its bias, which has one number for each output. */
  layer(ldm: string, diffusers: string, shape: Shape): void {
    this.matrix(ldm, diffusers, shape);
    this.tensor(`${ldm}.bias`, `${diffusers}.bias`, shape.slice(0, 1));
  }

  /** A layer without bias. */
  matrix(ldm: string, diffusers: string, shape: Shape): void {
    this.tensor(`${ldm}.weight`, `${diffusers}.weight`, shape);
  }

  /** A normalisation. */
  norm(ldm: string, diffusers: string, channels: number): void {
    this.layer(ldm, diffusers, [channels]);
  }

  /** A convolution that keeps the size, 3 x 3 unless `side` says otherwise. */
  conv(ldm: string, diffusers: string, outChannels: number, inChannels: number, side = 3): void {
    this.layer(ldm, diffusers, [outChannels, inChannels, side, side]);
  }
}

function join(place: string, name: string): string {
  return place === '' ? name : `${place}.${name}`;
}
