const WORDS: Record<string, string> = {
  ENOENT: 'does not exist',
  EISDIR: 'is a directory, not a file',
  EACCES: "can't be read: permission denied",
};

/**
 * Why a file can't be read, in words that follow its name.
 *
 * @param error - what reading it threw
 */
export function fileFault(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  return WORDS[code] ?? `can't be read (${error instanceof Error ? error.message : String(error)})`;
}

/**
 * The sentence about a file that an environment variable names and that can't be read.
 *
 * @param variables - by name
 * @param error - what reading the file threw
 * @returns null where the error is of another kind, or no variable names the file
 */
export function variableFault(variables: Readonly<Record<string, string>>, error: unknown): string | null {
  const file = error instanceof Error && 'path' in error ? error.path : null;
  const named = Object.entries(variables).find(([, value]) => value === file);
  return named === undefined ? null : `${named[0]} names ${named[1]}, which ${fileFault(error)}.`;
}
