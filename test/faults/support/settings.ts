/** Epochs of each job, and between two checkpoints: three chunks. */
export const EPOCHS = 6;
export const CHUNK_EPOCHS = 2;

/** A pod counts as lost after this long without a sign of life. */
export const HOLD_MS = 5_000;
/** A pod that can't tell gives up after this long. */
export const FENCE_MS = 6_500;
/** A trainer that does nothing counts as stuck after this long; while it loads, only after 20 s: others may want the cores. */
export const STALL_MS = 6_000;

/** Both sides of a connection to RabbitMQ take it for dead after about two of these: three times as soon as in production. */
export const AMQP_HEARTBEAT_S = 5;

/** Disks of pods have 32 MiB (`small-disk.ts`), and some faults are struck at many pods. */
const FIT = { minFreeDiskMiB: 8, rest: '500ms' };

/** Like production, but everything that waits for a fault waits for seconds. */
export const OVERRIDES = {
  workflow: { chunkEpochs: CHUNK_EPOCHS },
  // A message that a test holds in the bridge must not hold up those of other cases.
  bridge: { prefetch: 10 },
  pod: {
    beat: '1500ms',
    heartbeatThrottle: '500ms',
    fence: `${FENCE_MS}ms`,
    stall: `${STALL_MS}ms`,
    loadStall: '20s',
    ...FIT,
  },
  backend: { timeout: '2s', progressInterval: '500ms' },
  activities: {
    inspectPictures: { heartbeat: `${HOLD_MS}ms` },
    holdPod: { heartbeat: `${HOLD_MS}ms` },
    findResumePoint: { heartbeat: '5s', retry: { initialInterval: '200ms', maximumInterval: '1s' } },
    promote: { heartbeat: '5s', retry: { initialInterval: '200ms', maximumInterval: '1s' } },
    notify: { startToClose: '5s', retry: { initialInterval: '300ms', maximumInterval: '1s' } },
  },
};

/** For the few cases that take the time that they take. */
export const AS_IN_PRODUCTION = {
  workflow: { chunkEpochs: CHUNK_EPOCHS },
  bridge: { prefetch: 10 },
  pod: FIT,
};
