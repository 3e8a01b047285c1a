import { join } from 'node:path';
import { cacheRoot } from './setup/cache.mjs';
import { setUpClangFormat } from './setup/clang-format.mjs';
import { setUpDependencies } from './setup/dependencies.mjs';
import { buildNative } from './setup/native.mjs';
import { setUpNode } from './setup/node.mjs';
import { describeMissing, findMissing } from './setup/prerequisites.mjs';
import { setUpRabbitmq } from './setup/rabbitmq.mjs';
import { setUpReferencePython } from './setup/reference-python.mjs';
import { runInForeground } from './setup/shell.mjs';
import { setUpTctl } from './setup/tctl.mjs';
import { setUpTemporal } from './setup/temporal.mjs';
import { setUpVersitygw } from './setup/versitygw.mjs';

/** @typedef {import('./setup/prerequisites.mjs').Part} Part */

/**
 * @typedef {object} Verb
 * @property {Part[]} needs what is set up before it runs
 * @property {string[][]} commands what runs, one after another up to the first that fails; `node` is the chosen Node, the
 *   programs of node_modules/.bin (and with `reference` its `python3`) are on the PATH, the caller's arguments go to the
 *   last command
 * @property {Part[]} [helpNeeds] what its own `--help` needs; absent where it takes no options
 * @property {boolean} [inCallersFolder] runs in the caller's folder, so that relative paths mean what the caller means
 * @property {string} summary one line for the usage text
 */

const ESLINT_CACHE = 'node_modules/.cache/eslint/';

/** @type {Record<string, Verb>} */
export const VERBS = {
  setup: {
    needs: ['node_modules', 'native', 'stack', 'tctl', 'clang-format'],
    commands: [],
    summary: 'set up and build everything',
  },
  demo: {
    needs: ['node_modules', 'addon', 'stack'],
    commands: [['node', 'scripts/demo.ts']],
    helpNeeds: ['node_modules'],
    inCallersFolder: true,
    summary: 'train a style on this machine, from the message to the weights',
  },
  brushwork: {
    needs: ['node_modules', 'addon'],
    commands: [['node', 'cli/main.ts']],
    helpNeeds: ['node_modules'],
    inCallersFolder: true,
    summary: 'the brushwork command itself',
  },
  'build:native': { needs: ['node_modules', 'native'], commands: [], summary: 'build the C++ parts' },
  test: {
    needs: ['node_modules', 'native', 'stack', 'tctl'],
    commands: [['node', 'scripts/testing/main.ts', 'native', 'unit', 'workflow', 'integration', 'faults']],
    summary: 'run every test that needs no GPU',
  },
  'test:native': {
    needs: ['node_modules', 'native'],
    commands: [['node', 'scripts/testing/main.ts', 'native']],
    summary: 'run the C++ tests',
  },
  'test:unit': {
    needs: ['node_modules', 'addon'],
    commands: [['node', 'scripts/testing/main.ts', 'unit']],
    summary: 'run the tests of single modules',
  },
  'test:workflow': {
    needs: ['node_modules', 'stack'],
    commands: [['node', 'scripts/testing/main.ts', 'workflow']],
    summary: 'run the workflow tests',
  },
  'test:integration': {
    needs: ['node_modules', 'native', 'stack', 'tctl'],
    commands: [['node', 'scripts/testing/main.ts', 'integration']],
    summary: 'run the tests on real parts',
  },
  'test:faults': {
    needs: ['node_modules', 'native', 'stack', 'tctl'],
    commands: [['node', 'test/faults/main.ts']],
    helpNeeds: ['node_modules'],
    summary: 'strike every fault at every moment of a job',
  },
  'test:soak': {
    needs: ['node_modules', 'native', 'stack', 'tctl'],
    commands: [['node', 'test/faults/soak.ts']],
    helpNeeds: ['node_modules'],
    summary: 'train many jobs on pods that are killed all the time',
  },
  'test:fidelity': {
    needs: ['node_modules', 'native', 'reference'],
    commands: [['python3', 'test/fidelity/main.py', '--model', join(cacheRoot(), 'fidelity-model-1')]],
    helpNeeds: [],
    summary: 'compare a full-size model with diffusers and PEFT',
  },
  'test:gpu': {
    needs: ['node_modules'],
    commands: [['node', 'scripts/testing/gpu.ts']],
    summary: 'run the tests that take a device on a GPU',
  },
  lint: {
    needs: ['node_modules'],
    commands: [
      ['tsc'],
      ['eslint', '--cache', '--cache-location', ESLINT_CACHE, '--max-warnings', '0', '.'],
      ['node', 'scripts/check-native.ts'],
    ],
    summary: 'check types and rules',
  },
  format: {
    needs: ['node_modules', 'clang-format'],
    commands: [
      ['prettier', '--log-level', 'warn', '--write', '.'],
      ['node', 'scripts/clang-format.ts', '-i'],
    ],
    summary: 'format all sources',
  },
  'format:check': {
    needs: ['node_modules', 'clang-format'],
    commands: [
      ['prettier', '--check', '.'],
      ['node', 'scripts/clang-format.ts', '--dry-run', '--Werror'],
    ],
    summary: 'check that all sources are formatted',
  },
};

/**
 * What the caller's arguments ask for.
 *
 * @param {string} name of the verb
 * @param {Verb} verb
 * @param {string[]} extra the caller's arguments
 * @returns {{ help: string } | { needs: Part[], extra: string[] }} a text to print, or what is to be set up before the verb's
 *   commands run with these arguments; a help text waits for no set-up but that of the program that prints it
 */
export function planOf(name, verb, extra) {
  const isHelp = (/** @type {string} */ word) => word === '--help' || word === '-h';
  if (!extra.some(isHelp)) return { needs: verb.needs, extra };
  if (!verb.helpNeeds)
    return { help: `Usage: npm run ${name}\n\nIt is there to ${verb.summary}, and takes no options.\n` };
  return { needs: verb.helpNeeds, extra: extra.map((word) => (isHelp(word) ? '--help' : word)) };
}

/**
 * @param {unknown} error
 * @returns {string}
 */
export function messageOf(error) {
  return error instanceof Error ? error.message : String(error);
}

/**
 * Sets up what a verb needs. What does not depend on each other is done side by side.
 *
 * @param {string} root the repository
 * @param {Part[]} needs
 * @returns {Promise<NodeJS.ProcessEnv>} the environment in which the verb's commands run
 * @throws where something is missing or fails, with a message that says what to do
 */
export async function setUp(root, needs) {
  const parts = new Set(needs);
  const missing = await findMissing(parts);
  if (missing.length > 0) throw new Error(describeMissing(missing));
  const nodeFolder = await setUpNode();
  /** @type {(() => Promise<unknown>)[]} */
  const chains = [];
  chains.push(async () => {
    if (parts.has('node_modules')) await setUpDependencies(root, nodeFolder);
    if (parts.has('native')) await buildNative(root, nodeFolder, null);
    else if (parts.has('addon')) await buildNative(root, nodeFolder, 'addon');
  });
  // Each Go build uses all cores by itself: one after another.
  chains.push(async () => {
    if (parts.has('stack')) {
      await setUpTemporal();
      await setUpVersitygw();
    }
    if (parts.has('tctl')) await setUpTctl();
  });
  if (parts.has('stack')) chains.push(setUpRabbitmq);
  /** @type {string[]} */
  const referenceFolders = [];
  if (parts.has('reference')) chains.push(async () => referenceFolders.push(await setUpReferencePython()));
  if (parts.has('clang-format')) chains.push(setUpClangFormat);
  const results = await Promise.allSettled(chains.map((chain) => chain()));
  const failures = results.flatMap((result) => (result.status === 'rejected' ? [messageOf(result.reason)] : []));
  if (failures.length > 0) throw new Error(failures.join('\n'));
  return {
    ...process.env,
    PATH: [nodeFolder, join(root, 'node_modules/.bin'), ...referenceFolders, process.env.PATH ?? ''].join(':'),
  };
}

/**
 * Runs the commands of a verb.
 *
 * @param {string} root the repository
 * @param {Verb} verb
 * @param {string[]} extra arguments for the last command
 * @param {NodeJS.ProcessEnv} env
 * @returns {Promise<number>} exit code
 */
export async function runVerb(root, verb, extra, env) {
  for (const [index, command] of verb.commands.entries()) {
    const isLast = index === verb.commands.length - 1;
    const [program = 'node', ...words] = command;
    if (program === 'node' && words[0]) words[0] = join(root, words[0]);
    // npm starts scripts in the package's root and keeps the folder in which it was called itself.
    const callersFolder = env.INIT_CWD ?? process.cwd();
    const code = await runInForeground(program, [...words, ...(isLast ? extra : [])], {
      cwd: verb.inCallersFolder ? callersFolder : root,
      env,
    });
    if (code !== 0) return code;
  }
  return 0;
}
