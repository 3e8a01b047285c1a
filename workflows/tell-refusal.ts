import { uuid4 } from '@temporalio/workflow';
import type { RefusalInput } from '../common/types.ts';
import { bindActivities } from './calls.ts';

/**
 * Tells the backend that a message about a style became no job: nobody else would, and it would wait for ever. The
 * message itself lies in the dead queue.
 *
 * @param input - what was refused and why
 */
export async function tellRefusal(input: RefusalInput): Promise<void> {
  const { styleId, messageId, webhookOrigin, errorCode, errorMessage, settings } = input;
  const { scheduleToCloseMs, startToCloseMs } = settings.limits.notify;
  await bindActivities(settings).notify(
    { summary: `failed: ${errorCode}`, scheduleToCloseTimeout: scheduleToCloseMs ?? startToCloseMs },
    { kind: 'failed', styleId, taskId: messageId, webhookOrigin, webhookId: uuid4(), errorCode, errorMessage },
  );
}
