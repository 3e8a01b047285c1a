import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { setUpClangFormat } from './setup/clang-format.mjs';
import { listNativeSources } from './native-rules.ts';

// Runs the pinned clang-format with the given options over all C++ sources.
const root = path.join(import.meta.dirname, '..');
const files = listNativeSources(root);
if (files.length > 0) {
  const program = await setUpClangFormat();
  const { status } = spawnSync(program, [...process.argv.slice(2), ...files], { cwd: root, stdio: 'inherit' });
  process.exitCode = status ?? 1;
}
