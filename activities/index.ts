import type { HoldPodInput } from '../common/types.ts';
import type * as T from '../common/types.ts';
export interface PodActivities { holdPod(i: HoldPodInput): Promise<void>; download(i: T.DownloadInput): Promise<T.DownloadResult>; trainEpochChunk(i: T.TrainEpochChunkInput): Promise<T.TrainEpochChunkResult>; checkpoint(i: T.CheckpointInput): Promise<T.CheckpointResult>; upload(i: T.UploadInput): Promise<T.UploadResult>; }
export interface ControlActivities { findResumePoint(i: T.FindResumePointInput): Promise<T.FindResumePointResult>; promote(i: T.PromoteInput): Promise<T.PromoteResult>; notify(i: T.NotifyInput): Promise<void>; }
