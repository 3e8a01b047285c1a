import { readFileSync, readdirSync } from 'node:fs';

/** What a process holds at a moment. */
export interface Usage {
  rssMiB: number;
  /** Open files, sockets among them. */
  handles: number;
}

/** Looks at a process; null where it is gone. */
export function usageOf(pid: number): Usage | null {
  try {
    const rssKiB = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    return { rssMiB: Number(rssKiB ?? 0) / 1024, handles: readdirSync(`/proc/${pid}/fd`).length };
  } catch {
    return null;
  }
}

/** How much of each a process may hold more at the end than at the beginning and still count as flat. */
const SLACK: Usage = { rssMiB: 40, handles: 10 };
/** The beginning: caches fill. */
const WARM_UP_SHARE = 0.1;

/** What one process held over time. */
export class UsageLog {
  readonly name: string;
  readonly #samples: Usage[] = [];

  constructor(name: string) {
    this.name = name;
  }

  add(usage: Usage | null): void {
    if (usage !== null) this.#samples.push(usage);
  }

  /** First and last third, as medians; and whether the process grew. */
  verdict(): { text: string; grew: boolean } {
    const samples = this.#samples.slice(Math.floor(this.#samples.length * WARM_UP_SHARE));
    const third = Math.ceil(samples.length / 3);
    const first = medianOf(samples.slice(0, third));
    const last = medianOf(samples.slice(-third));
    const show = ({ rssMiB, handles }: Usage) => `${rssMiB.toFixed(0)} MiB, ${handles} handles`;
    return {
      text: `${this.name}: ${show(first)} in the first third, ${show(last)} in the last (${samples.length} samples)`,
      grew: last.rssMiB > first.rssMiB + SLACK.rssMiB || last.handles > first.handles + SLACK.handles,
    };
  }
}

function medianOf(samples: readonly Usage[]): Usage {
  const median = (key: keyof Usage) =>
    samples.map((usage) => usage[key]).sort((a, b) => a - b)[Math.floor(samples.length / 2)] ?? 0;
  return { rssMiB: median('rssMiB'), handles: median('handles') };
}
