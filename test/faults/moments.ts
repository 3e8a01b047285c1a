import type { FaultPoint } from '../../common/fault-point.ts';

/** Where a job is held at a moment. */
export type Place = 'bridge' | 'pod' | 'trainer' | 'control';

/** A moment of a job, reached by passing named points of the code. */
export interface Moment {
  /** E.g. `checkpoint:data`. */
  name: string;
  place: Place;
  /** Points that are passed one after another; the job is held at the last one. */
  points: FaultPoint[];
  /** Instead of the last point: an upload held in the middle of its body, of a key with this in its path. */
  upload?: 'data' | 'staging';
  /** The job has lost a pod before, after its first checkpoint was committed. */
  isResumed?: boolean;
  /** The weights are staged: a cancel comes too late. */
  isLate?: boolean;
  /** The backend has taken the notice. */
  isTold?: boolean;
  /** Nothing waits for the point: the job goes on while it is struck. */
  isPassing?: boolean;
}

const at = (point: FaultPoint, place: Place, more: Partial<Moment> = {}): Moment => ({
  ...{ name: point, place, points: [point] },
  ...more,
});

/** The second of three: a checkpoint is committed already, and another follows. */
const second = (point: FaultPoint, place: Place, more: Partial<Moment> = {}): Moment =>
  at(point, place, { points: [point, point], ...more });

const resumed = (point: FaultPoint, place: Place, more: Partial<Moment> = {}): Moment =>
  at(point, place, { name: `${point} again`, isResumed: true, ...more });

/** Every moment of a job at which something is done, in order. */
export const MOMENTS: readonly Moment[] = [
  at('bridge:received', 'bridge'),
  at('bridge:started', 'bridge'),
  at('inspect:begin', 'control'),
  at('inspect:end', 'control'),
  at('hold:taken', 'pod'),
  at('hold:announced', 'pod'),
  at('resume:begin', 'control'),
  at('resume:end', 'control'),
  at('download:begin', 'pod'),
  at('download:pictures', 'pod'),
  at('train:begin', 'pod', { name: 'train:first' }),
  at('trainer:load', 'trainer'),
  at('trainer:encode', 'trainer'),
  second('train:begin', 'pod'),
  at('train:step', 'pod', { points: ['train:begin', 'train:begin', 'train:step'], isPassing: true }),
  second('trainer:save', 'trainer'),
  second('train:saved', 'pod'),
  at('checkpoint:begin', 'pod', { name: 'checkpoint:first' }),
  second('checkpoint:begin', 'pod'),
  at('checkpoint:begin', 'pod', { name: 'checkpoint:half', upload: 'data' }),
  second('checkpoint:data', 'pod'),
  second('checkpoint:manifest', 'pod'),
  second('checkpoint:end', 'pod'),
  at('checkpoint:data', 'pod', {
    name: 'checkpoint:last',
    points: ['checkpoint:data', 'checkpoint:data', 'checkpoint:data'],
  }),
  at('upload:begin', 'pod'),
  at('trainer:export', 'trainer'),
  at('upload:exported', 'pod'),
  at('upload:exported', 'pod', { name: 'upload:half', upload: 'staging' }),
  at('upload:end', 'pod'),
  at('promote:begin', 'control', { isLate: true }),
  at('promote:copied', 'control', { isLate: true }),
  at('promote:end', 'control', { isLate: true }),
  at('notify:begin', 'control', { isLate: true }),
  at('notify:taken', 'control', { isLate: true, isTold: true }),
  resumed('hold:announced', 'pod'),
  resumed('resume:begin', 'control'),
  resumed('download:checkpoint', 'pod', { name: 'download:checkpoint' }),
  resumed('trainer:restore', 'trainer', { name: 'trainer:restore' }),
  resumed('train:step', 'pod', { isPassing: true }),
];

/** Where a case waits for none. */
export const NO_MOMENT: Moment = { name: 'any', place: 'bridge', points: [] };

/** A moment by its name. */
export function momentOf(name: string): Moment {
  const moment = MOMENTS.find((one) => one.name === name);
  if (moment === undefined) throw new Error(`There is no moment ${name}.`);
  return moment;
}
