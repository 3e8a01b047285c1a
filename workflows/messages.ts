import { defineQuery, defineSignal } from '@temporalio/workflow';
import type { CheckpointRef, PodHeld, TrainStatus, ValidationLoss } from '../common/types.ts';

/** Sent by `holdPod` once a pod has given its slot to the job. */
export const podHeldSignal = defineSignal<[PodHeld]>('podHeld');

/** Sent by an operator: commit what is trained, give the pod back, and wait. */
export const pauseTrainingSignal = defineSignal('pauseTraining');

/** Sent by an operator: go on after `pauseTraining`. */
export const resumeTrainingSignal = defineSignal('resumeTraining');

/** Sent by an operator while the job waits for one: try again. */
export const retryNowSignal = defineSignal('retryNow');

/** Sent by an operator while the job waits for one: end it. */
export const giveUpSignal = defineSignal('giveUp');

/** Where the job stands. */
export const statusQuery = defineQuery<TrainStatus>('status');

/** Committed checkpoints, newest first. */
export const checkpointsQuery = defineQuery<CheckpointRef[]>('checkpoints');

/** Mean loss of each epoch, oldest first. */
export const lossCurveQuery = defineQuery<number[]>('lossCurve');

/** What was measured on held-out pictures, oldest first; empty without validation. */
export const validationCurveQuery = defineQuery<ValidationLoss[]>('validationCurve');
