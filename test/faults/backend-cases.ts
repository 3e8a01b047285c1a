import type { BackendBehaviour } from '../../scripts/stack/backend.ts';
import { fromTheStart, loseAPicture } from './fault-case.ts';
import type { FaultCase } from './fault-case.ts';

/** How the backend may treat a final notice; it is well again afterwards. */
const BEHAVIOURS: Record<string, BackendBehaviour & { about: string }> = {
  'backend-down': {
    about: 'connections break before the notice is read, five times',
    cut: 'before-accepting',
    times: 5,
  },
  'backend-forgets': {
    about: 'it takes the notice and breaks the connection, twice',
    cut: 'after-accepting',
    times: 2,
  },
  'backend-slow': { about: 'it takes the notice and answers too late, once', delayMs: 2_600, times: 1 },
  'backend-500': { about: 'it answers 500, four times', status: 500, times: 4 },
  'backend-502': { about: 'it answers 502, four times', status: 502, times: 4 },
  'backend-503': { about: '503 with Retry-After 2', status: 503, headers: { 'retry-after': '2' }, times: 1 },
  'backend-429': { about: '429 with Retry-After 2', status: 429, headers: { 'retry-after': '2' }, times: 2 },
  'backend-408': { about: 'it answers 408, twice', status: 408, times: 2 },
  'backend-401': { about: 'it refuses the token, four times', status: 401, times: 4 },
  'backend-403': { about: 'it answers 403, four times', status: 403, times: 4 },
};

/** Answers that say never. */
const REFUSALS: Record<string, BackendBehaviour & { about: string }> = {
  'backend-400': { about: 'it answers 400 for ever', status: 400 },
  'backend-404': { about: 'it answers 404 for ever', status: 404 },
  'backend-410': { about: 'it answers 410 for ever', status: 410 },
  'backend-redirects': {
    about: 'it redirects to elsewhere for ever',
    status: 302,
    headers: { location: 'http://127.0.0.1:9/' },
  },
};

/** A backend that is ill when it gets a final notice. */
export const backendIll = (['complete', 'failed'] as const).flatMap((kind) =>
  [...Object.entries(BEHAVIOURS), ...Object.entries(REFUSALS)].map(([name, { about, ...behaviour }]): FaultCase => {
    const isRefused = Object.hasOwn(REFUSALS, name);
    const base = fromTheStart(name, `notice ${kind}`, `the backend: ${about}`, {
      isRefused,
      prepare: (scene) => {
        scene.backend.setBehaviour({ ...behaviour, kinds: [kind] });
        if (kind === 'failed') loseAPicture(scene);
      },
    });
    return kind === 'complete' ? base : { ...base, outcome: 'failed', errorCode: 'IMAGE_NOT_FOUND' };
  }),
);

/** A backend that is ill when it gets progress notices. */
export const progressIll = Object.entries({
  'backend-500': { status: 500 },
  'backend-down': { cut: 'before-accepting' },
  'backend-slow': { delayMs: 2_600 },
  'backend-400': { status: 400 },
} satisfies Record<string, BackendBehaviour>).map(([name, behaviour]) =>
  fromTheStart(name, 'notice progress', 'the backend treats each progress notice so', {
    prepare: (scene) => scene.backend.setBehaviour({ ...behaviour, kinds: ['progress'] }),
  }),
);
