#!/usr/bin/env node
// The one entry of all npm scripts: sets up what the verb needs, then runs it. It runs before node_modules exists and on
// an older Node than the rest, so it and scripts/setup/ use neither packages nor TypeScript.
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { messageOf, planOf, runVerb, setUp, VERBS } from './verbs.mjs';

const root = join(fileURLToPath(import.meta.url), '../..');
const [name = '', ...words] = process.argv.slice(2);
const verb = Object.hasOwn(VERBS, name) ? VERBS[name] : undefined;

/** @returns {string} */
function usage() {
  const width = Math.max(...Object.keys(VERBS).map((key) => key.length));
  const lines = Object.entries(VERBS).map(([key, { summary }]) => `  ${key.padEnd(width)}  ${summary}`);
  return `Usage: node scripts/run.mjs <verb> [arguments]\n\n${lines.join('\n')}\n`;
}

/**
 * @param {import('./verbs.mjs').Verb} chosen
 * @returns {Promise<number>} exit code
 */
async function run(chosen) {
  const plan = planOf(name, chosen, words);
  if (!('help' in plan)) return runVerb(root, chosen, plan.extra, await setUp(root, plan.needs));
  process.stdout.write(plan.help);
  return 0;
}

if (verb) {
  try {
    process.exitCode = await run(verb);
  } catch (error) {
    process.stderr.write(`${messageOf(error)}\n`);
    process.exitCode = 1;
  }
} else if (name === '--help' || name === '-h') {
  process.stdout.write(usage());
} else {
  process.stderr.write(usage());
  process.exitCode = 2;
}
