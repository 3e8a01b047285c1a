import type { Tool } from './buttons.ts';
import type { Moment, Place } from './moments.ts';
import type { Reached, Scene } from './support/scene.ts';

/** How a job may end. */
export type Outcome = 'complete' | 'cancelled' | 'failed' | 'terminated';

/** Something that goes wrong, or that an operator does, at a moment of a job. */
export interface Fault {
  name: string;
  /** What it is, in a few words. */
  about: string | ((tool: Tool) => string);
  /** Moments at which it makes sense. */
  places: Place[];
  /** It hits all jobs: those of one batch are struck together. */
  isShared?: boolean;
  /** Further condition on the moment. */
  suits?: (moment: Moment) => boolean;
  /** How the job must end; default: complete. */
  outcome?: (moment: Moment) => Outcome;
  /** Runs of the workflow; default: 1. */
  runs?: number;
  /** Before the message is sent. */
  prepare?: (scene: Scene) => Promise<unknown>;
  /** Does it. A held process goes on when {@link Reached.release} was called, at the latest after this. */
  strike: (scene: Scene, reached: Reached) => Promise<void>;
}

/** One fault at one moment. */
export interface FaultCase {
  fault: string;
  moment: string;
  about: string;
  /** It hits all jobs: struck together with others of the same fault. */
  isShared: boolean;
  outcome: Outcome;
  runs: number;
  maxTold: number;
  isRefused?: boolean;
  errorCode?: string;
  /** The newest checkpoint is damaged: training goes on from exactly this epoch. */
  resumesFrom?: number;
  /** What the backend was told before a reset. */
  toldBefore?: 'failed';
  /** The weights are in place though the job did not end as complete. */
  isPublished?: boolean;
  /** The job waits for an operator, and gets one. */
  needsOperator?: boolean;
  /** The fault is done to a job that has ended: its end is another one afterwards. */
  isAfterEnd?: boolean;
  /** What is damaged stays so in the bucket, since the job fails. */
  staysDamaged?: boolean;
  /** Before the message is sent. */
  prepare: (scene: Scene) => Promise<void> | void;
  /** Waits for the moment; null where there is none to wait for. */
  reach: (scene: Scene) => Promise<Reached | null>;
  /** The fault itself; with several jobs, the first one's is struck for all of them. */
  strike: (scene: Scene, reached: Reached) => Promise<void>;
  /** After the end of the job. */
  afterwards?: (scene: Scene) => Promise<void>;
}

/** Of the pictures, checkpoints and weights. */
export const BUCKET = 'brushwork';

/** Name by which a case is run alone. */
export function idOf({ fault, moment }: Pick<FaultCase, 'fault' | 'moment'>): string {
  return `${fault}@${moment}`;
}

/** A case without a moment of its own: something is wrong from the beginning. */
export function fromTheStart(
  fault: string,
  moment: string,
  about: string,
  more: Partial<FaultCase> & { prepare: FaultCase['prepare'] },
): FaultCase {
  return {
    ...{ fault, moment, about, isShared: false, outcome: 'complete', runs: 1, maxTold: 1 },
    ...{ reach: async () => null, strike: async () => undefined },
    ...more,
  };
}

/** Makes a job fail: it names a picture that nobody has. */
export function loseAPicture({ job }: Scene): void {
  job.images[3] = `s3://${BUCKET}/pictures/lost.png`;
}
