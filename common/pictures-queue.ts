/**
 * Task queue on which control workers look at pictures: apart from their others, so that a burst of jobs holds up none
 * that is under way.
 *
 * Pure: runs in the workflow sandbox.
 *
 * @param controlQueue - of the workflows
 */
export function picturesQueue(controlQueue: string): string {
  return `${controlQueue}-pictures`;
}
