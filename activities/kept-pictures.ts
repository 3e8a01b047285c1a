import { createHash } from 'node:crypto';
import path from 'node:path';
import { keptPicturesPrefix } from '../common/checkpoint-manifest.ts';
import type { JobKeys } from '../common/checkpoint-manifest.ts';
import type { ObjectLocation, ObjectStore, TransferResult } from '../common/object-store.ts';
import { MAX_CAPTION_BYTES, captionFile } from '../native/trainer/caption.ts';
import { JOB_PICTURE_LIMITS } from '../native/trainer/picture.ts';
import { inParallel } from './in-parallel.ts';

const PARALLEL = 8;

/** A picture on this machine's disk, and the URL that it came from. */
export interface PictureByUrl {
  uri: string;
  /** Of its file. */
  name: string;
  /** True when its caption is its own, and not the job's. */
  hasCaption: boolean;
}

/**
 * A job's own copies, in the bucket, of the pictures that came by URL. A presigned URL expires, and the pod that takes a job
 * over hours later, or a job that is redone, needs the same bytes.
 */
export class KeptPictures {
  readonly #job: JobKeys;
  readonly #store: ObjectStore;
  readonly #bucket: string;

  constructor(job: JobKeys, { store, bucket }: { store: ObjectStore; bucket: string }) {
    this.#job = job;
    this.#store = store;
    this.#bucket = bucket;
  }

  /**
   * Brings a picture that was kept onto the disk, and its caption where it has one of its own.
   *
   * @param uri - as in the message
   * @param name - of its file in `directory`
   * @returns null when it was not kept
   */
  async fetch(
    uri: string,
    directory: string,
    name: string,
    signal: AbortSignal,
  ): Promise<{ picture: TransferResult; caption: TransferResult | null } | null> {
    const file = path.join(directory, name);
    const maxBytes = JOB_PICTURE_LIMITS.maxBytes;
    const picture = await this.#store.downloadFile(this.#picture(uri), file, { maxBytes, signal });
    if (picture === null) return null;
    const captionPath = path.join(directory, captionFile(name));
    const limits = { maxBytes: MAX_CAPTION_BYTES, signal };
    return { picture, caption: await this.#store.downloadFile(this.#caption(uri), captionPath, limits) };
  }

  /** Copies pictures into the bucket. */
  async keep(pictures: readonly PictureByUrl[], directory: string, signal: AbortSignal): Promise<void> {
    await inParallel(pictures, PARALLEL, async ({ uri, name, hasCaption }) => {
      const upload = (file: string, to: ObjectLocation) =>
        this.#store.uploadFile(path.join(directory, file), to, { signal });
      // The picture comes last: where it lies, its caption does too.
      if (hasCaption) await upload(captionFile(name), this.#caption(uri));
      await upload(name, this.#picture(uri));
    });
  }

  #picture(uri: string): ObjectLocation {
    const digest = createHash('sha256').update(uri).digest('hex');
    return { bucket: this.#bucket, key: `${keptPicturesPrefix(this.#job)}${digest}` };
  }

  #caption(uri: string): ObjectLocation {
    const { bucket, key } = this.#picture(uri);
    return { bucket, key: `${key}.txt` };
  }
}
