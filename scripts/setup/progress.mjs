/** Seconds between two lines about one part where standard error is no terminal. */
const PLAIN_INTERVAL_S = 10;
const TERMINAL_INTERVAL_MS = 250;

/** Work that is done sooner than this is not mentioned. */
const QUIET_MS = 1500;

/** @type {Map<string, { status: () => string, startedAtMs: number, printedAtMs: number | null }>} */
const active = new Map();
/** @type {NodeJS.Timeout | null} */
let timer = null;

/** @param {number} startedAtMs */
function elapsed(startedAtMs) {
  const seconds = Math.round((Date.now() - startedAtMs) / 1000);
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

function draw() {
  if (process.stderr.isTTY) {
    const parts = [...active].map(([name, part]) => `${name} ${part.status()}`.trim());
    process.stderr.write(`\r\u001b[K${parts.join(' · ').slice(0, (process.stderr.columns ?? 80) - 1)}`);
    return;
  }
  for (const [name, part] of active) {
    const isDue = part.printedAtMs === null || Date.now() - part.printedAtMs >= PLAIN_INTERVAL_S * 1000;
    if (!isDue || Date.now() - part.startedAtMs < QUIET_MS) continue;
    part.printedAtMs = Date.now();
    say(`${name}: ${part.status()} (${elapsed(part.startedAtMs)})`);
  }
}

/**
 * Prints a line to standard error, above the progress where there is one.
 *
 * @param {string} line
 */
export function say(line) {
  process.stderr.write(`${process.stderr.isTTY ? '\r\u001b[K' : ''}${line}\n`);
}

/**
 * Does a piece of set-up with progress on standard error: a status line on a terminal, else a line every 10 seconds.
 *
 * @template T
 * @param {string} name what is being set up
 * @param {(setStatus: (status: (() => string) | string) => void) => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function withProgress(name, work) {
  /** @type {{ status: () => string, startedAtMs: number, printedAtMs: number | null }} */
  const part = { status: () => 'starting', startedAtMs: Date.now(), printedAtMs: null };
  active.set(name, part);
  timer ??= setInterval(draw, process.stderr.isTTY ? TERMINAL_INTERVAL_MS : 1000);
  try {
    const result = await work((status) => {
      part.status = typeof status === 'string' ? () => status : status;
    });
    active.delete(name);
    if (Date.now() - part.startedAtMs >= QUIET_MS) say(`${name}: ready (${elapsed(part.startedAtMs)})`);
    return result;
  } finally {
    active.delete(name);
    if (active.size === 0 && timer) {
      clearInterval(timer);
      timer = null;
      if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
    }
  }
}
