import type { ErrorCode } from '../../common/errors.ts';
import type {
  SampleRequest,
  SheetRequest,
  StepReport,
  TrainerJob,
  TrainerPosition,
  TrainerRuntime,
} from '../../common/trainer.ts';
import type { MixedPrecision } from '../../common/types.ts';

/** What a trainer process is started with, as the JSON of its only argument. */
export interface TrainerProcessArguments {
  device: TrainerDevice;
  /** A process before this one had a GPU. */
  hadGpu: boolean;
  threadCount: number;
  /** See `common/fault-point.ts`; null: off. */
  faultPoints: string | null;
}

/** 'auto' takes the GPU where there is one. */
export type TrainerDevice = 'auto' | 'cpu' | 'cuda';

/** What pictures are drawn with where there is no job. */
export interface DrawingModel {
  /** Directory in diffusers layout. */
  baseModelDirectory: string;
  mixedPrecision: MixedPrecision;
  /** A LoRA file or PEFT directory, or null. */
  lora: string | null;
}

/** Each command with what it carries; answered in the order in which they were sent. */
export type TrainerCommand =
  | { kind: 'runtime' }
  | { kind: 'prepare'; job: TrainerJob; checkpointFile: string | null }
  | { kind: 'train'; untilEpoch: number }
  | { kind: 'validate' }
  | { kind: 'saveCheckpoint'; file: string }
  | { kind: 'exportWeights'; directory: string }
  | { kind: 'openForDrawing'; model: DrawingModel }
  | { kind: 'sample'; request: SampleRequest }
  | { kind: 'drawSheet'; request: SheetRequest };

/** What each command is answered with. */
export interface TrainerResults {
  runtime: TrainerRuntime;
  prepare: TrainerPosition;
  train: { position: TrainerPosition; stopped: boolean };
  /** Null: it was stopped. */
  validate: number | null;
  saveCheckpoint: TrainerPosition;
  exportWeights: null;
  openForDrawing: null;
  sample: { stopped: boolean };
  drawSheet: { stopped: boolean };
}

/** Worker to trainer. `stop` overtakes: it ends the `train`, `validate`, `sample` or `drawSheet` of that id at the next step. */
export type WorkerMessage = { kind: 'command'; id: number; command: TrainerCommand } | { kind: 'stop'; id: number };

/** Trainer to worker. Reports of a `train` come in order, all before its answer. */
export type TrainerMessage =
  | { kind: 'steps'; id: number; reports: StepReport[] }
  | { kind: 'result'; id: number; result: TrainerResults[keyof TrainerResults] }
  | { kind: 'failure'; id: number; code: ErrorCode; message: string };
