/** What mocha's types leave out: the kind of runnable, and our own mark that the reporter reads. */
interface Markable {
  type?: string;
  parent?: Markable;
  skipReason?: string;
}

/**
 * Skips a test (from within it) or a suite (from within its `before` hook) and says why in the summary of the run.
 *
 * @example
 * if (!hasGpu()) skip(this, 'needs a GPU');
 */
export function skip(context: Mocha.Context, reason: string): never {
  const runnable = context.test as Markable | undefined;
  const owner = runnable?.type === 'hook' ? runnable.parent : runnable;
  if (owner) owner.skipReason = reason;
  return context.skip();
}
