import type { ActivityInterceptorsFactory } from '@temporalio/worker';

/** Fields that name the job, taken from an activity's input. */
function jobFieldsOf(input: unknown): Record<string, unknown> {
  if (typeof input !== 'object' || input === null) return {};
  const { styleId, taskId } = input as Record<string, unknown>;
  return { style: styleId, task: taskId };
}

/**
 * Lets every line that an activity logs carry `style`, `task` and, on a pod, `pod`.
 *
 * @param pod - host of the pod, or null on a control worker
 */
export function jobLogInterceptor(pod: string | null): ActivityInterceptorsFactory {
  return () => {
    let fields: Record<string, unknown> = {};
    return {
      inbound: {
        execute: (input, next) => {
          fields = { ...jobFieldsOf(input.args[0]), ...(pod !== null && { pod }) };
          return next(input);
        },
      },
      outbound: { getLogAttributes: (attributes, next) => ({ ...next(attributes), ...fields }) },
    };
  };
}
