import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';

const ROOT = path.join(import.meta.dirname, '../../..');
const COPIED = [
  'activities',
  'bridge',
  'cli',
  'common',
  'native',
  'worker',
  'workflows',
  'temporal.yaml',
  'tsconfig.json',
];
const SHARED = ['node_modules', 'build'];

/** Version of the copy that {@link copyOfOtherVersion} makes. */
export const OTHER_VERSION = '99.0.0';

/** What the other version does before each chunk, in the way in which a release has to: jobs begun without it go on without. */
const CHANGE = {
  file: 'workflows/work-on-pod.ts',
  before: "view.enter('training', null);",
  after: "view.enter('training', null);\n      if (patched('another-release')) await sleep(1);",
};

/**
 * Copies the program, as a release of another version: own files, another version number, and workflow code that does
 * something more.
 *
 * @param directory - that receives it
 * @returns the copy's `cli/main.ts`
 */
export function copyOfOtherVersion(directory: string): string {
  mkdirSync(directory, { recursive: true });
  for (const name of COPIED) cpSync(path.join(ROOT, name), path.join(directory, name), { recursive: true });
  for (const name of SHARED) symlinkSync(path.join(ROOT, name), path.join(directory, name));
  const changed = path.join(directory, CHANGE.file);
  const code = readFileSync(changed, 'utf8');
  if (!code.includes(CHANGE.before))
    throw new Error(`${CHANGE.file} has no ${CHANGE.before} any more: adapt this change.`);
  writeFileSync(changed, code.replace(CHANGE.before, CHANGE.after));
  const json = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')) as object;
  writeFileSync(path.join(directory, 'package.json'), JSON.stringify({ ...json, version: OTHER_VERSION }));
  return path.join(directory, 'cli/main.ts');
}
