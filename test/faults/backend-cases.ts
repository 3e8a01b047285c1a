import type { BackendBehaviour, WebhookKind } from '../../scripts/stack/backend.ts';
import { setTimeout as sleep } from 'node:timers/promises';
import { fromTheStart, loseAPicture } from './fault-case.ts';
import type { FaultCase } from './fault-case.ts';
import { momentOf } from './moments.ts';
import type { Link } from './support/link.ts';
import type { Scene } from './support/scene.ts';

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

/** Answers after which no other notice follows. */
const REFUSALS: Record<string, BackendBehaviour & { about: string }> = {
  'backend-400': { about: 'it answers 400 for ever', status: 400 },
  'backend-404': { about: 'it answers 404 for ever', status: 404 },
  'backend-409': { about: 'it answers 409 for ever: it has taken the notice', status: 409 },
  'backend-410': { about: 'it answers 410 for ever', status: 410 },
  'backend-redirects': {
    about: 'it redirects to elsewhere for ever',
    status: 302,
    headers: { location: 'http://127.0.0.1:9/' },
  },
};

/** Some notice must have met the illness: not answered as it should be, or so late that it came again. */
function mustBeIll(scene: Scene, kind: WebhookKind, { delayMs }: BackendBehaviour): void {
  const notices = () =>
    scene.backend.requests.filter((one) => one.kind === kind && one.body?.['style_id'] === scene.job.styleId);
  scene.mustHit(`no ${kind} notice met the backend's illness`, () =>
    delayMs === undefined ? notices().some(({ status }) => status !== 200) : notices().length > 1,
  );
}

/** A backend that is ill when it gets a final notice. */
export const backendIll = (['complete', 'failed'] as const).flatMap((kind) =>
  [...Object.entries(BEHAVIOURS), ...Object.entries(REFUSALS)].map(([name, { about, ...behaviour }]): FaultCase => {
    const isRefused = Object.hasOwn(REFUSALS, name);
    const base = fromTheStart(name, `notice ${kind}`, `the backend: ${about}`, {
      isRefused,
      prepare: (scene) => {
        scene.backend.setBehaviour({ ...behaviour, kinds: [kind] });
        mustBeIll(scene, kind, behaviour);
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
    prepare: (scene) => {
      scene.backend.setBehaviour({ ...behaviour, kinds: ['progress'] });
      mustBeIll(scene, 'progress', behaviour);
    },
  }),
);

/** How long nobody answers. */
const GONE_MS = 20_000;

/** The backend is not there when it would get the final notice. */
export const backendGone = Object.entries({
  'backend-gone': {
    about: 'nobody listens at the port of the backend for 20 s',
    begin: (link: Link) => link.close(),
    end: (link: Link) => link.reopen(),
  },
  'backend-silent': {
    about: 'the backend takes connections and answers nothing for 20 s',
    begin: (link: Link) => link.stall(),
    end: (link: Link) => link.heal(),
  },
}).map(([name, { about, begin, end }]): FaultCase => {
  const moment = momentOf('notify:begin');
  return fromTheStart(name, moment.name, about, {
    prepare: (scene) => scene.arm(moment),
    reach: (scene) => scene.reach(moment),
    strike: async (scene, { release }) => {
      const { backendLink, samples } = scene;
      scene.mustHit('the job did not wait for the backend', () =>
        samples.some(({ status }) => status.phase === 'notifying' && status.reason?.includes('Trying on') === true),
      );
      await begin(backendLink);
      release();
      await sleep(GONE_MS);
      await end(backendLink);
    },
  });
});
