#!/usr/bin/env node
// The one entry of all npm scripts: sets up what the verb needs, then runs it. It runs before node_modules exists and on
// an older Node than the rest, so it and scripts/setup/ use neither packages nor TypeScript.
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { messageOf, runVerb, setUp, VERBS } from './verbs.mjs';

const root = join(fileURLToPath(import.meta.url), '../..');
const [name = '', ...extra] = process.argv.slice(2);
const verb = Object.hasOwn(VERBS, name) ? VERBS[name] : undefined;

if (!verb) {
  const width = Math.max(...Object.keys(VERBS).map((key) => key.length));
  const lines = Object.entries(VERBS).map(([key, { summary }]) => `  ${key.padEnd(width)}  ${summary}`);
  process.stderr.write(`Usage: node scripts/run.mjs <verb> [arguments]\n\n${lines.join('\n')}\n`);
  process.exitCode = 2;
} else {
  try {
    process.exitCode = await runVerb(root, verb, extra, await setUp(root, verb.needs));
  } catch (error) {
    process.stderr.write(`${messageOf(error)}\n`);
    process.exitCode = 1;
  }
}
