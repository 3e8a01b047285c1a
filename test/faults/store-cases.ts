import { fromTheStart } from './fault-case.ts';
import type { FaultCase } from './fault-case.ts';
import { momentOf } from './moments.ts';
import { killPodWith } from './strikes.ts';
import type { S3Flaw } from './support/s3-proxy.ts';
import type { Scene } from './support/scene.ts';

/** A kind of request to the store that can be spoilt. */
interface SpoiltRequest {
  name: string;
  method: string;
  path: (styleId: number) => RegExp;
  /** It happens only after a pod was lost. */
  again?: boolean;
  /** Others like it come before a pod is held. */
  onPod?: boolean;
}

const picturesOf = (id: number) => `/pictures-of-${id}/.*\\.(png|jpg)`;

const REQUESTS: SpoiltRequest[] = [
  { name: 'picture', method: 'GET', path: (id) => new RegExp(picturesOf(id)) },
  { name: 'picture, on the pod', method: 'GET', path: (id) => new RegExp(picturesOf(id)), onPod: true },
  // Every second picture has one.
  {
    name: 'caption, on the pod',
    method: 'GET',
    path: (id) => new RegExp(`/pictures-of-${id}/.*[02468]\\.txt`),
    onPod: true,
  },
  { name: 'data report', method: 'PUT', path: (id) => new RegExp(`checkpoints/style_${id}/.*/data-report`) },
  { name: 'manifests, list', method: 'GET', path: (id) => new RegExp(`prefix=checkpoints.*style_${id}%2F`) },
  { name: 'data, upload', method: 'PUT', path: (id) => new RegExp(`checkpoints/style_${id}/.*/data/`) },
  { name: 'manifest, upload', method: 'PUT', path: (id) => new RegExp(`checkpoints/style_${id}/.*/manifests/`) },
  { name: 'manifest', method: 'GET', path: (id) => new RegExp(`checkpoints/style_${id}/.*/manifests/`), again: true },
  { name: 'data', method: 'GET', path: (id) => new RegExp(`checkpoints/style_${id}/.*/data/`), again: true },
  { name: 'weights, upload', method: 'PUT', path: (id) => new RegExp(`staging/style_${id}/`) },
  { name: 'weights, copy', method: 'PUT', path: (id) => new RegExp(`/models/style_${id}/`) },
  { name: 'cleaning', method: 'DELETE', path: (id) => new RegExp(`/style_${id}/`) },
];

/** Without conditional writes no worker starts, see test/integration/pod-unfit.test.ts. */
const FLAWS: Record<Exclude<S3Flaw, 'unconditional'>, string> = {
  'slow-down': 'the store answers 503 SlowDown four times',
  error: 'the store answers 500 four times',
  denied: 'the store answers 403 four times',
  'cut-body': 'the connection breaks in the middle of the body, four times',
  'lost-answer': 'the store does it and its answer is lost, once',
  'flipped-bit': 'one bit of the body is flipped on the way, once',
};

/** More than the client tries by itself, so that the job has to try again too. */
const FLAW_TIMES = 4;

const hasBody = (method: string, name: string) => method === 'GET' || name.includes('upload');

function makesSense(flaw: keyof typeof FLAWS, { name, method }: SpoiltRequest): boolean {
  if (flaw === 'cut-body' || flaw === 'flipped-bit') return hasBody(method, name);
  // A picture that is refused from the start fails the job, see the messages.
  return flaw !== 'denied' || name !== 'picture';
}

function spoil(scene: Scene, { name, method, path }: SpoiltRequest, flaw: keyof typeof FLAWS): void {
  const times = flaw === 'lost-answer' || flaw === 'flipped-bit' ? 1 : FLAW_TIMES;
  const rule = scene.world.s3.spoil({ method, path: path(scene.job.styleId), flaw, times });
  scene.mustHit(`no request came to be spoilt (${name})`, () => rule.hits > 0);
}

function spoiltCase(request: SpoiltRequest, flaw: keyof typeof FLAWS): FaultCase {
  const { name, again, onPod } = request;
  const prepare = async (scene: Scene) => {
    // Of its own: others must not be denied theirs.
    if (name.startsWith('picture') || name.startsWith('caption')) await scene.takeOwnPictures();
  };
  if (again !== true && onPod !== true)
    return fromTheStart(`store-${flaw}`, name, FLAWS[flaw], {
      prepare: async (scene) => {
        await prepare(scene);
        spoil(scene, request, flaw);
      },
    });
  const moment = momentOf(again === true ? 'checkpoint:end' : 'hold:announced');
  return fromTheStart(`store-${flaw}`, name, FLAWS[flaw], {
    prepare: async (scene) => {
      await prepare(scene);
      scene.arm(moment);
    },
    reach: (scene) => scene.reach(moment),
    strike: async (scene, { pid, release }) => {
      spoil(scene, request, flaw);
      if (again === true) await killPodWith(scene, pid);
      else release();
    },
  });
}

/** Single requests to the store go wrong. */
export const storeSpoilt = REQUESTS.flatMap((request) =>
  (Object.keys(FLAWS) as (keyof typeof FLAWS)[])
    .filter((flaw) => makesSense(flaw, request))
    .map((flaw) => spoiltCase(request, flaw)),
);
