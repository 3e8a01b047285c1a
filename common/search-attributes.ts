import { defineSearchAttributeKey } from '@temporalio/common';

/** Stands for "nothing" in a Keyword attribute, so that it can be searched for. */
export const NO_VALUE = '-';

/** The style (Keyword). */
export const styleIdKey = defineSearchAttributeKey('StyleId', 'KEYWORD');

/** The task (Keyword). */
export const taskIdKey = defineSearchAttributeKey('TaskId', 'KEYWORD');

/** Phase of the job (Keyword), see `TrainPhase`. */
export const trainPhaseKey = defineSearchAttributeKey('TrainPhase', 'KEYWORD');

/** Epochs trained so far (Int). */
export const trainEpochKey = defineSearchAttributeKey('TrainEpoch', 'INT');

/** Host of the pod that the job holds (Keyword), or {@link NO_VALUE}. */
export const gpuHostKey = defineSearchAttributeKey('GpuHost', 'KEYWORD');

/** Code of the error that the job failed with or waits because of (Keyword), or {@link NO_VALUE}. */
export const trainErrorCodeKey = defineSearchAttributeKey('TrainErrorCode', 'KEYWORD');
