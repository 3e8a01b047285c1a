import type { ModelProgress } from '../worker/model-download.ts';

/** Where a training stands. */
export interface Progress {
  /** Epochs done, counting the one under way as a fraction. */
  epoch: number;
  totalEpochs: number;
  loss: number;
  stepsPerSecond: number;
  remainingSeconds: number;
}

/** Receives text; `isTTY` decides between a bar and plain lines. */
export interface ProgressOutput {
  isTTY?: boolean;
  write(text: string): unknown;
}

const BAR_WIDTH = 28;
const PLAIN_LINE_INTERVAL_MS = 5_000;
const BAR_INTERVAL_MS = 100;

/**
 * A duration for people: `45 s`, `3 min 05 s`, `2 h 10 min`.
 *
 * @param seconds - not negative
 */
export function durationText(seconds: number): string {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  const two = (value: number): string => String(value).padStart(2, '0');
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

/**
 * The figures of a progress line.
 *
 * @param progress - where the training stands
 */
export function progressText(progress: Progress): string {
  const { epoch, totalEpochs, loss, stepsPerSecond, remainingSeconds } = progress;
  const width = String(totalEpochs).length;
  return [
    `epoch ${String(Math.floor(epoch)).padStart(width)}/${totalEpochs}`,
    `loss ${loss.toFixed(4)}`,
    `${stepsPerSecond.toFixed(2)} steps/s`,
    `ETA ${durationText(remainingSeconds)}`,
  ].join('  ');
}

/**
 * A bar of fixed width.
 *
 * @param share - done, 0 to 1
 */
export function barText(share: number): string {
  const full = Math.round(Math.min(1, Math.max(0, share)) * BAR_WIDTH);
  return `${'█'.repeat(full)}${'░'.repeat(BAR_WIDTH - full)}`;
}

/** Shows progress: a bar that redraws itself on a terminal, else a plain line every few seconds. */
export class ProgressDisplay {
  readonly #output: ProgressOutput;
  readonly #nowMs: () => number;
  #lastMs = -Infinity;
  #barShown = false;

  /**
   * @param output - e.g. `process.stdout`
   * @param nowMs - clock; default: the system's
   */
  constructor(output: ProgressOutput, nowMs: () => number = Date.now) {
    this.#output = output;
    this.#nowMs = nowMs;
  }

  /** Shows where the training stands, unless it did so a moment ago; the end is always shown. */
  update(progress: Progress): void {
    const nowMs = this.#nowMs();
    const isTerminal = this.#output.isTTY === true;
    const isEnd = progress.epoch >= progress.totalEpochs;
    if (!isEnd && nowMs - this.#lastMs < (isTerminal ? BAR_INTERVAL_MS : PLAIN_LINE_INTERVAL_MS)) return;
    this.#lastMs = nowMs;
    const text = progressText(progress);
    if (isTerminal) this.#output.write(`\r\x1b[K${barText(progress.epoch / progress.totalEpochs)} ${text}`);
    else this.#output.write(`${text}\n`);
    this.#barShown = isTerminal;
  }

  /** Leaves the bar's line, so that other text may follow. */
  end(): void {
    if (this.#barShown) this.#output.write('\n');
    this.#barShown = false;
  }
}

/**
 * Shows how far the download or the conversion of a base model is: a line for each tenth of it, or one that redraws itself on
 * a terminal.
 *
 * @param output - e.g. `process.stdout`
 */
export function downloadDisplay(output: ProgressOutput): (progress: ModelProgress) => void {
  const isTerminal = output.isTTY === true;
  const stepPercent = isTerminal ? 1 : 10;
  let shown = { activity: '', percent: -1 };
  return ({ activity = 'downloading', doneBytes, totalBytes }) => {
    const percent = Math.floor((100 * doneBytes) / totalBytes / stepPercent) * stepPercent;
    if (activity === shown.activity && percent <= shown.percent) return;
    shown = { activity, percent };
    const text = `${activity} the base model: ${percent} % of ${Math.ceil(totalBytes / 2 ** 20)} MiB`;
    if (!isTerminal) output.write(`${text}\n`);
    else output.write(`\r\x1b[K${text}${percent === 100 ? '\n' : ''}`);
  };
}
