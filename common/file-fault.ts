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
