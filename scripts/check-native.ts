import { readFileSync } from 'node:fs';
import path from 'node:path';
import { findNativeFaults, listNativeSources } from './native-rules.ts';

// The rules of native/ that no compiler checks; part of `npm run lint`.
const root = path.join(import.meta.dirname, '..');
const faults = listNativeSources(root).flatMap((file) =>
  findNativeFaults(file, readFileSync(path.join(root, file), 'utf8')),
);
for (const fault of faults) console.error(fault);
process.exitCode = faults.length === 0 ? 0 : 1;
