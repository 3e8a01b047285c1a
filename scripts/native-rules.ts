import { globSync } from 'node:fs';

const MAXIMUM_LINES = 500;

/** The C++ sources of the repository, as paths relative to its root. */
export function listNativeSources(root: string): string[] {
  return globSync('native/**/*.{h,cc,cu,cuh}', { cwd: root }).sort();
}

/**
 * Checks one C++ source: only native/binding/ knows Node, and no file grows past 500 lines.
 *
 * @param file - path relative to the repository's root
 * @param text - its content
 * @returns one sentence per fault
 */
export function findNativeFaults(file: string, text: string): string[] {
  const faults: string[] = [];
  if (!file.startsWith('native/binding/')) {
    const include = /^\s*#\s*include\s*[<"]((?:napi|node_api|js_native_api|node|v8|uv)(?:-inl)?\.h)[">]/m.exec(text);
    if (include) faults.push(`${file} includes ${include[1]}: only native/binding/ may know Node.`);
  }
  const lines = text.split('\n').length - 1;
  if (lines > MAXIMUM_LINES) faults.push(`${file} has ${lines} lines: split it, ${MAXIMUM_LINES} are the most.`);
  return faults;
}
