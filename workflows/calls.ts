import { ActivityCancellationType, proxyActivities, workflowInfo } from '@temporalio/workflow';
import type { ActivityOptions } from '@temporalio/workflow';
import type { ControlActivities, PicturesActivities, PodActivities } from '../activities/index.ts';
import { ERROR_CLASSES } from '../common/errors.ts';
import { picturesQueue } from '../common/pictures-queue.ts';
import type { ActivityLimits, WorkflowSettings } from '../common/types.ts';

function optionsOf(limits: ActivityLimits): ActivityOptions {
  const { retry } = limits;
  return {
    startToCloseTimeout: limits.startToCloseMs,
    ...(limits.heartbeatMs !== null && { heartbeatTimeout: limits.heartbeatMs }),
    ...(limits.scheduleToStartMs !== null && { scheduleToStartTimeout: limits.scheduleToStartMs }),
    ...(limits.scheduleToCloseMs !== null && { scheduleToCloseTimeout: limits.scheduleToCloseMs }),
    retry: {
      initialInterval: retry.initialIntervalMs,
      backoffCoefficient: retry.backoffCoefficient,
      maximumInterval: retry.maximumIntervalMs,
      ...(retry.maximumAttempts !== null && { maximumAttempts: retry.maximumAttempts }),
    },
  };
}

/**
 * What an activity itself has to say comes back to the job, which shows it and decides. Temporal alone repeats only what a
 * worker did not bring to an end.
 */
const OWN_ERRORS = Object.keys(ERROR_CLASSES).filter((code) => code !== 'WORKER_SHUTDOWN');

/** Options of one call that are not in the configuration. */
export interface CallExtras {
  /** Short line for the Web UI, at most 200 bytes. */
  summary: string;
}

/** The activities, bound to their option groups. Each call has a summary for the Web UI. */
export interface Calls {
  /** Null in a job that was accepted by a version without it. */
  inspectPictures:
    | ((
        extras: CallExtras,
        ...args: Parameters<PicturesActivities['inspectPictures']>
      ) => ReturnType<PicturesActivities['inspectPictures']>)
    | null;
  holdPod: (extras: CallExtras, ...args: Parameters<PodActivities['holdPod']>) => Promise<void>;
  /** The activities that need the disk and the GPU of the pod behind `queue`. */
  onPod: (queue: string) => OnPod;
  findResumePoint: ControlActivities['findResumePoint'];
  promote: ControlActivities['promote'];
  /** A single try: the caller repeats it. */
  notify: (extras: CallExtras, ...args: Parameters<ControlActivities['notify']>) => Promise<void>;
  notifyProgress: (extras: CallExtras, ...args: Parameters<ControlActivities['notify']>) => Promise<void>;
}

/** Activities on a pod's private queue. */
export type OnPod = {
  [Name in 'download' | 'trainEpochChunk' | 'checkpoint' | 'upload']: (
    extras: CallExtras,
    ...args: Parameters<PodActivities[Name]>
  ) => ReturnType<PodActivities[Name]>;
};

function boundInspection(limits: ActivityLimits): NonNullable<Calls['inspectPictures']> {
  const options: ActivityOptions = {
    ...optionsOf(limits),
    taskQueue: picturesQueue(workflowInfo().taskQueue),
    // What it writes must not come after the end of the job.
    cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
  };
  const { inspectPictures } = proxyActivities<PicturesActivities>(options);
  return (extras, ...args) => inspectPictures.executeWithOptions({ ...options, ...extras }, args);
}

/**
 * Binds the activities to their time limits, which come with the job.
 *
 * @param settings - from the workflow's input
 */
export function bindActivities(settings: WorkflowSettings): Calls {
  const { limits } = settings;
  // Activities of the control workers are short: nobody waits until a cancel has reached them.
  const controlOptions = (name: 'findResumePoint' | 'promote' | 'notifyProgress'): ActivityOptions => {
    const options = optionsOf(limits[name]);
    return {
      ...options,
      retry: { ...options.retry, nonRetryableErrorTypes: OWN_ERRORS },
      cancellationType: ActivityCancellationType.TRY_CANCEL,
    };
  };
  const control = (name: Parameters<typeof controlOptions>[0]) =>
    proxyActivities<ControlActivities>(controlOptions(name));
  const { startToCloseMs } = limits.notify;
  const notifyOptions: ActivityOptions = {
    startToCloseTimeout: startToCloseMs,
    retry: { maximumAttempts: 1 },
    cancellationType: ActivityCancellationType.TRY_CANCEL,
  };
  // Releasing a pod must not wait for it: it may be dead.
  const holdOptions: ActivityOptions = {
    ...optionsOf(limits.holdPod),
    taskQueue: settings.podsQueue,
    cancellationType: ActivityCancellationType.TRY_CANCEL,
  };
  const pods = proxyActivities<PodActivities>(holdOptions);
  return {
    inspectPictures: limits.inspectPictures === undefined ? null : boundInspection(limits.inspectPictures),
    holdPod: (extras, ...args) => pods.holdPod.executeWithOptions({ ...holdOptions, ...extras }, args),
    onPod: (queue) => {
      // A cancelled job ends only after the pod has confirmed that the GPU is idle; a dead pod is never waited for,
      // because whatever runs on it is raced against its hold.
      const call = (name: 'download' | 'trainEpochChunk' | 'checkpoint' | 'upload', extras: CallExtras) => ({
        ...optionsOf(limits[name]),
        taskQueue: queue,
        cancellationType: ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        ...extras,
      });
      const pod = proxyActivities<PodActivities>({ ...optionsOf(limits.download), taskQueue: queue });
      return {
        download: (extras, ...args) => pod.download.executeWithOptions(call('download', extras), args),
        trainEpochChunk: (extras, ...args) =>
          pod.trainEpochChunk.executeWithOptions(call('trainEpochChunk', extras), args),
        checkpoint: (extras, ...args) => pod.checkpoint.executeWithOptions(call('checkpoint', extras), args),
        upload: (extras, ...args) => pod.upload.executeWithOptions(call('upload', extras), args),
      };
    },
    findResumePoint: control('findResumePoint').findResumePoint,
    promote: control('promote').promote,
    notify: (extras, ...args) =>
      proxyActivities<ControlActivities>(notifyOptions).notify.executeWithOptions(
        { ...notifyOptions, ...extras },
        args,
      ),
    notifyProgress: (extras, ...args) =>
      control('notifyProgress').notify.executeWithOptions({ ...controlOptions('notifyProgress'), ...extras }, args),
  };
}
