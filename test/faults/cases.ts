import { allInOne } from './all-in-one-cases.ts';
import { backendGone, backendIll, progressIll } from './backend-cases.ts';
import { toolOf } from './buttons.ts';
import { damaged, otherFormat, previousVersion } from './damage-cases.ts';
import { idOf } from './fault-case.ts';
import type { Fault, FaultCase } from './fault-case.ts';
import { FAULTS } from './faults.ts';
import { messages } from './message-cases.ts';
import { MOMENTS } from './moments.ts';
import type { Moment } from './moments.ts';
import { afterTheEnd, inStates } from './state-cases.ts';
import { storeSpoilt } from './store-cases.ts';

function atMoment(fault: Fault, moment: Moment): FaultCase {
  const { about } = fault;
  return {
    fault: fault.name,
    moment: moment.name,
    about: typeof about === 'string' ? about : about(toolOf(idOf({ fault: fault.name, moment: moment.name }))),
    isShared: fault.isShared === true,
    outcome: fault.outcome?.(moment) ?? 'complete',
    runs: fault.runs ?? 1,
    maxTold: fault.runs !== undefined && moment.isTold === true ? 2 : 1,
    prepare: async (scene) => {
      await fault.prepare?.(scene);
      scene.arm(moment);
    },
    reach: (scene) => scene.reach(moment),
    strike: async (scene, reached) => {
      await fault.strike(scene, reached);
      reached.release();
    },
  };
}

const struckAtMoments = FAULTS.flatMap((fault) =>
  MOMENTS.filter((moment) => fault.places.includes(moment.place) && (fault.suits?.(moment) ?? true)).map((moment) =>
    atMoment(fault, moment),
  ),
);

/** Every case, in the order of the table. */
export const CASES: readonly FaultCase[] = [
  ...struckAtMoments,
  ...storeSpoilt,
  ...damaged,
  ...otherFormat,
  ...previousVersion,
  ...inStates,
  ...afterTheEnd,
  ...allInOne,
  ...backendIll,
  ...backendGone,
  ...progressIll,
  ...messages,
];
