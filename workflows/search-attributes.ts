import { defineSearchAttributeKey } from '@temporalio/common';

/** Phase of the job (Keyword), see `TrainPhase`. */
export const trainPhaseKey = defineSearchAttributeKey('TrainPhase', 'KEYWORD');

/** Epochs trained so far (Int). */
export const trainEpochKey = defineSearchAttributeKey('TrainEpoch', 'INT');

/** Host of the pod that the job holds (Keyword), absent while it holds none. */
export const gpuHostKey = defineSearchAttributeKey('GpuHost', 'KEYWORD');

/** Code of the error that the job failed with or waits because of (Keyword). */
export const trainErrorCodeKey = defineSearchAttributeKey('TrainErrorCode', 'KEYWORD');
