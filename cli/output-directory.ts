import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rmdir, stat } from 'node:fs/promises';
import path from 'node:path';
import { InvalidRequestError } from '../common/errors.ts';
import { reasonOf } from '../common/logger.ts';

/**
 * Makes the directory that a command writes to, and those above it.
 *
 * @param directory - may exist already
 * @throws InvalidRequestError when it can't be made, or not be written to
 */
export async function makeOutputDirectory(directory: string): Promise<void> {
  try {
    await makeDirectories(path.resolve(directory));
    // Asked for its permissions, a directory that takes no files lets root write.
    await rmdir(await mkdtemp(path.join(directory, '.brushwork-')));
  } catch (error) {
    throw new InvalidRequestError(
      `The output directory ${directory} can't be made or written to: ${reasonOf(error)}. Name another.`,
      { cause: error },
    );
  }
}

/** Directory by directory: Node's own recursive mkdir never returns below directories that take none, such as /proc. */
async function makeDirectories(directory: string): Promise<void> {
  const found = await stat(directory).catch(() => null);
  if (found?.isDirectory() === true) return;
  if (found !== null) throw new Error(`${directory} is a file`);
  await makeDirectories(path.dirname(directory));
  await mkdir(directory);
}

/** What a run leaves beside its log. */
const RESULTS = 'lora_weights.safetensors kohya.safetensors peft peft_text_encoder loss.png previews'.split(' ');

/** Where a training writes. */
export class OutputDirectory {
  readonly directory: string;
  readonly resume: boolean;

  /**
   * @param directory - need not exist
   * @param resume - whether an interrupted run is to go on
   * @throws InvalidRequestError when there is none to go on, or when an earlier run would be written over
   */
  constructor(directory: string, resume: boolean) {
    this.directory = directory;
    this.resume = resume;
    const checkpoints = [this.checkpointFile, this.previousCheckpointFile].filter((file) => existsSync(file));
    const fault = resume ? this.#resumeFault(checkpoints) : this.#startFault(checkpoints);
    if (fault !== null) throw new InvalidRequestError(fault);
  }

  #resumeFault(checkpoints: readonly string[]): string | null {
    if (checkpoints.length > 0) return null;
    return existsSync(this.weightsFile)
      ? `The run in ${this.directory} is finished: there is nothing to go on with. To train anew, name another --output.`
      : `${this.checkpointFile} does not exist: start without --resume.`;
  }

  #startFault(checkpoints: readonly string[]): string | null {
    if (checkpoints.length > 0) {
      const [are, them] = checkpoints.length === 1 ? ['is', 'it'] : ['are', 'them'];
      const files = checkpoints.join(' and ');
      return `${files} ${are} of a run that was interrupted: go on with --resume, or delete ${them} to start anew.`;
    }
    const result = RESULTS.find((name) => existsSync(this.inside(name)));
    if (result === undefined) return null;
    return (
      `${this.inside(result)} is of an earlier run, which would be written over: name another --output, or delete what ` +
      'that run left.'
    );
  }

  /** The newest checkpoint of a run that is not finished. */
  get checkpointFile(): string {
    return this.inside('checkpoint.safetensors');
  }

  /** The checkpoint before that one. */
  get previousCheckpointFile(): string {
    return this.inside('checkpoint.previous.safetensors');
  }

  /** What the checkpoints were made from, see `RunRecord`. */
  get recordFile(): string {
    return this.inside('checkpoint.json');
  }

  /** The result, for diffusers. */
  get weightsFile(): string {
    return this.inside('lora_weights.safetensors');
  }

  /** Path of a file in it. */
  inside(name: string): string {
    return path.join(this.directory, name);
  }
}
