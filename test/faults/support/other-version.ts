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

/**
 * Copies the program, as a release of another version: own files, another version number, and workflow code whose bundle is
 * made anew.
 *
 * @param directory - that receives it
 * @returns the copy's `cli/main.ts`
 */
export function copyOfOtherVersion(directory: string): string {
  mkdirSync(directory, { recursive: true });
  for (const name of COPIED) cpSync(path.join(ROOT, name), path.join(directory, name), { recursive: true });
  for (const name of SHARED) symlinkSync(path.join(ROOT, name), path.join(directory, name));
  const json = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8')) as object;
  writeFileSync(path.join(directory, 'package.json'), JSON.stringify({ ...json, version: OTHER_VERSION }));
  return path.join(directory, 'cli/main.ts');
}
