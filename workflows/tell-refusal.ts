import { ApplicationFailure, setCurrentDetails, uuid4, workflowInfo } from '@temporalio/workflow';
import type { RefusalInput } from '../common/types.ts';
import { deliverNotice } from './backend.ts';
import { bindActivities } from './calls.ts';

/**
 * Tells the backend that a message about a style became no job: nobody else would, and it would wait for ever. The
 * message itself lies in the dead queue. Once the style has been in training since, that is what the backend hears of, and
 * this notice is dropped: each try asks first.
 *
 * @param input - what was refused and why
 * @returns what the backend was told, or why it was not
 * @throws ApplicationFailure with what the backend answered when it never took the notice
 */
export async function tellRefusal(input: RefusalInput): Promise<string> {
  const { styleId, messageId, webhookOrigin, errorCode, errorMessage, firstSeenMs = Infinity, settings } = input;
  const notice = { styleId, taskId: messageId, webhookOrigin, webhookId: uuid4(), errorCode, errorMessage };
  const unlessTrainedSinceMs = Math.min(workflowInfo().startTime.getTime(), firstSeenMs);
  const undelivered = await deliverNotice(
    { kind: 'failed', ...notice, unlessTrainedSinceMs },
    {
      calls: bindActivities(settings),
      limits: settings.limits.notify,
      waiting: ({ code, message }) => setCurrentDetails(`Telling the backend again soon: ${code}: ${message}`),
    },
  );
  if (undelivered === null) return `The backend was told: ${errorCode}.`;
  if (undelivered.kind === 'application' && undelivered.code === 'CANCELLED') {
    setCurrentDetails(`The backend was not told: ${undelivered.message}`);
    return undelivered.message;
  }
  throw ApplicationFailure.create({ message: undelivered.message, type: undelivered.code, nonRetryable: true });
}
