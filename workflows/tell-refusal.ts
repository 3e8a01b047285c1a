import { ApplicationFailure, setCurrentDetails, uuid4 } from '@temporalio/workflow';
import type { RefusalInput } from '../common/types.ts';
import { deliverNotice } from './backend.ts';
import { bindActivities } from './calls.ts';

/**
 * Tells the backend that a message about a style became no job: nobody else would, and it would wait for ever. The
 * message itself lies in the dead queue.
 *
 * @param input - what was refused and why
 * @throws ApplicationFailure with what the backend answered when it never took the notice
 */
export async function tellRefusal(input: RefusalInput): Promise<void> {
  const { styleId, messageId, webhookOrigin, errorCode, errorMessage, settings } = input;
  const undelivered = await deliverNotice(
    { kind: 'failed', styleId, taskId: messageId, webhookOrigin, webhookId: uuid4(), errorCode, errorMessage },
    {
      calls: bindActivities(settings),
      limits: settings.limits.notify,
      waiting: ({ code, message }) => setCurrentDetails(`Telling the backend again soon: ${code}: ${message}`),
    },
  );
  if (undelivered === null) return;
  throw ApplicationFailure.create({ message: undelivered.message, type: undelivered.code, nonRetryable: true });
}
