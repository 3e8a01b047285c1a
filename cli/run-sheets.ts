import { rm } from 'node:fs/promises';
import path from 'node:path';
import { epochName } from '../common/checkpoint-manifest.ts';
import { reasonOf } from '../common/logger.ts';
import type { SheetStyle, Trainer } from '../common/trainer.ts';

/** The contact sheets of one run, in a directory of their own. */
export class RunSheets {
  readonly #trainer: Trainer;
  readonly #sheet: SheetStyle;
  readonly #directory: string;
  readonly #pictures: string;
  readonly #tell: (line: string) => void;

  /**
   * @param trainer - holds the run's job when sheets are drawn
   * @param sheet - what they show
   * @param directory - gets `epoch-<6 digits>.png`
   * @param tell - receives why one was not drawn
   */
  constructor(trainer: Trainer, sheet: SheetStyle, directory: string, tell: (line: string) => void) {
    this.#trainer = trainer;
    this.#sheet = sheet;
    this.#directory = directory;
    this.#pictures = path.join(directory, '.pictures');
    this.#tell = tell;
  }

  /**
   * Draws the sheet of a checkpoint; neither a failure, which is told, nor the signal makes it throw.
   *
   * @returns what became of it
   */
  async draw(epoch: number, signal: AbortSignal): Promise<'drawn' | 'failed' | 'stopped'> {
    const file = path.join(this.#directory, `${epochName(epoch)}.png`);
    try {
      await this.#trainer.drawSheet({ ...this.#sheet, epoch, directory: this.#pictures, file }, signal);
      return 'drawn';
    } catch (error) {
      if (signal.aborted) return 'stopped';
      this.#tell(`no contact sheet of epoch ${epoch}: ${reasonOf(error)}`);
      return 'failed';
    }
  }

  /** Removes the single pictures, which another run may draw in another way. */
  async clear(): Promise<void> {
    await rm(this.#pictures, { recursive: true, force: true });
  }
}
