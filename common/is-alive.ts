/**
 * Whether a process of this machine runs.
 *
 * @param pid - of it; may have been given to another process since
 */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}
