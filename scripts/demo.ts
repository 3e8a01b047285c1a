// `npm run demo`: see scripts/demo/options.ts for what it can be told.
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { DEMO_HELP, parseDemoOptions } from './demo/options.ts';
import type { DemoOptions } from './demo/options.ts';
import { runDemo } from './demo/run.ts';

const INTERRUPTED = 130;

async function main(): Promise<number> {
  let options: DemoOptions | null;
  try {
    options = parseDemoOptions(process.argv.slice(2));
  } catch (error) {
    process.stderr.write(`${messageOf(error)} See: npm run demo -- --help\n`);
    return 2;
  }
  if (options === null) {
    process.stdout.write(DEMO_HELP);
    return 0;
  }
  const startMs = performance.now();
  const name = new Date().toISOString().replace(/[:.]/g, '-');
  const directory = path.join(import.meta.dirname, '../.brushwork/demo', name);
  mkdirSync(directory, { recursive: true });
  const say = (line: string): void => {
    const seconds = ((performance.now() - startMs) / 1000).toFixed(1).padStart(6);
    process.stdout.write(options.verbose ? `${seconds} s  ${line}\n` : `${line}\n`);
  };
  const stop = new AbortController();
  const stopped = new Promise<void>((resolve) => stop.signal.addEventListener('abort', () => resolve()));
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      // The kernel ends all parts with this process.
      if (stop.signal.aborted) process.exit(INTERRUPTED);
      say('stopping');
      stop.abort(new Error('The demo was interrupted.'));
    });
  }
  // A reader like `head` that has gone away is an interrupt as well.
  process.stdout.on('error', (error) => stop.abort(error));
  // Whatever the demo is doing: what it waits for is ended below.
  const interrupted = new Promise<never>((_, reject) => {
    stop.signal.addEventListener('abort', () => reject(stop.signal.reason as Error));
  });
  interrupted.catch(() => undefined);
  const ends: (() => Promise<void>)[] = [];
  const staysUp = process.stdout.isTTY && !options.exit;
  try {
    const onEnd = (end: () => Promise<void>) => void ends.unshift(end);
    const demo = runDemo({ options, staysUp, directory, say, signal: stop.signal, onEnd });
    const lines = await Promise.race([demo, interrupted]);
    for (const line of lines) process.stdout.write(`${line}\n`);
    if (staysUp && !stop.signal.aborted) {
      say('Everything stays up for a look around; Ctrl-C ends it.');
      await stopped;
    }
    return 0;
  } catch (error) {
    if (stop.signal.aborted) return INTERRUPTED;
    process.stderr.write(`The demo failed: ${messageOf(error)}\nLogs are in ${directory}\n`);
    return 1;
  } finally {
    // The latest parts first: nothing loses what it still talks to.
    for (const end of ends) await end().catch(() => undefined);
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

process.exit(await main());
