import { readFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ROLES } from '../../common/config-types.ts';
import type { Role } from '../../common/config-types.ts';
import { Part } from '../stack/part.ts';
import type { PartControl } from '../stack/part.ts';

const CLI = path.join(import.meta.dirname, '../../cli/main.ts');
const CHECK_INTERVAL_MS = 500;

/**
 * The three processes of the service, as in production; nothing runs yet.
 *
 * @param env - their whole environment
 * @param logDirectory - gets `bridge.log`, `control.log`, `pod.log`
 */
export function serviceProcesses(env: Record<string, string>, logDirectory: string): Part[] {
  return ROLES.map((role) => {
    const logFile = path.join(logDirectory, `${role}.log`);
    return new Part({
      name: role,
      command: [process.execPath, CLI, 'worker', '--role', role],
      env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...env },
      logDirectory,
      checkHealth: () => checkReady(logFile, role),
      // A pod may have a whole base model to download first.
      startTimeoutMs: 24 * 3600 * 1000,
    });
  });
}

/**
 * Watches a running part: without it the job would wait for ever.
 *
 * @param part - has been started
 * @param signal - ends the watch
 * @throws Error that names the part, how it has ended by itself, and its log; the signal's reason
 */
export async function watchPart(part: PartControl, signal: AbortSignal): Promise<never> {
  while (part.isRunning) await sleep(CHECK_INTERVAL_MS, undefined, { signal });
  const how = part.ending === null ? '' : ` ${part.ending}`;
  // Nothing can be written by what SIGKILL ends.
  const why = how.endsWith('SIGKILL')
    ? 'somebody killed it, or the kernel for want of memory (see dmesg); its last words are'
    : 'why is';
  throw new Error(`${part.name} has ended unexpectedly${how}: ${why} at the end of ${part.logFile}`);
}

async function checkReady(logFile: string, role: Role): Promise<void> {
  const ready = readFileSync(logFile, 'utf8')
    .split('\n')
    .some((line) => line.includes('"msg":"ready"') && line.includes(`"role":"${role}"`));
  if (!ready) throw new Error(`${role} is not ready yet.`);
}
