import { manifestPrefix } from '../../common/checkpoint-manifest.ts';
import { backendIll, progressIll } from './backend-cases.ts';
import { BUCKET, fromTheStart } from './fault-case.ts';
import type { Fault, FaultCase } from './fault-case.ts';
import { FAULTS } from './faults.ts';
import { messages } from './message-cases.ts';
import { MOMENTS } from './moments.ts';
import type { Moment } from './moments.ts';
import type { S3Flaw } from './support/s3-proxy.ts';
import type { Scene } from './support/scene.ts';

const nothing = () => undefined;

function momentOf(name: string): Moment {
  const moment = MOMENTS.find((one) => one.name === name);
  if (moment === undefined) throw new Error(`There is no moment ${name}.`);
  return moment;
}

function atMoment(fault: Fault, moment: Moment): FaultCase {
  return {
    fault: fault.name,
    moment: moment.name,
    about: fault.about,
    isShared: fault.isShared === true,
    outcome: fault.outcome?.(moment) ?? 'complete',
    runs: fault.runs ?? 1,
    maxTold: fault.runs !== undefined && moment.isTold === true ? 2 : 1,
    prepare: (scene) => scene.arm(moment),
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

const REQUESTS: SpoiltRequest[] = [
  { name: 'picture', method: 'GET', path: () => /\/pictures\// },
  { name: 'picture, on the pod', method: 'GET', path: () => /\/pictures\//, onPod: true },
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

const storeSpoilt = REQUESTS.flatMap(({ name, method, path, again, onPod }) =>
  (Object.keys(FLAWS) as (keyof typeof FLAWS)[])
    .filter((flaw) => hasBody(method, name) || !['cut-body', 'flipped-bit'].includes(flaw))
    .filter((flaw) => onPod !== true || flaw !== 'flipped-bit')
    // A picture that is refused fails the job, see the messages.
    .filter((flaw) => flaw !== 'denied' || !name.startsWith('picture'))
    // Pictures are not the service's to verify: nothing says what their bytes should be.
    .map((flaw): FaultCase => {
      const times = flaw === 'lost-answer' || flaw === 'flipped-bit' ? 1 : FLAW_TIMES;
      const spoil = ({ world, job }: Scene) => void world.s3.spoil({ method, path: path(job.styleId), flaw, times });
      const isLater = again === true || onPod === true;
      const base = fromTheStart(`store-${flaw}`, name, FLAWS[flaw], { prepare: isLater ? nothing : spoil });
      if (!isLater) return { ...base, isDamaged: flaw === 'flipped-bit' };
      const moment = momentOf(again === true ? 'checkpoint:end' : 'hold:announced');
      return {
        ...base,
        isDamaged: flaw === 'flipped-bit',
        prepare: (scene) => scene.arm(moment),
        reach: (scene) => scene.reach(moment),
        strike: async (scene, { pid, release }) => {
          spoil(scene);
          if (again !== true) return release();
          await (pid === null ? undefined : scene.world.podWithProcess(pid))?.worker.kill();
        },
      };
    }),
);

/** What may become of a checkpoint in the bucket before a pod needs it. */
const DAMAGES: Record<string, { about: string; part: 'manifests' | 'data'; body: (bytes: Buffer) => Buffer | null }> = {
  'data-cut': { about: 'the newest data is cut short', part: 'data', body: (bytes) => bytes.subarray(0, 1000) },
  'data-flipped': {
    about: 'a bit of the newest data is flipped',
    part: 'data',
    body: (bytes) => {
      const copy = Buffer.from(bytes);
      copy[copy.length - 9] = (copy[copy.length - 9] ?? 0) ^ 4;
      return copy;
    },
  },
  'data-gone': { about: 'the newest data is gone', part: 'data', body: () => null },
  'manifest-cut': {
    about: 'the newest manifest is cut short',
    part: 'manifests',
    body: (bytes) => bytes.subarray(0, 99),
  },
  'manifest-empty': { about: 'the newest manifest is empty', part: 'manifests', body: () => Buffer.alloc(0) },
  'manifest-gone': { about: 'the newest manifest is gone', part: 'manifests', body: () => null },
  'manifest-of-another': {
    about: 'the newest manifest is that of another task',
    part: 'manifests',
    body: (bytes) => Buffer.from(bytes.toString().replaceAll(/"taskId":"[^"]*"/g, '"taskId":"another"')),
  },
};

async function damageNewest(scene: Scene, { part, body }: (typeof DAMAGES)[string]): Promise<void> {
  const { store } = scene.world.service;
  const keys = await store.list(BUCKET, manifestPrefix(scene.job).replace('manifests', part));
  const key = keys.sort().at(-1);
  if (key === undefined) throw new Error('There is no checkpoint to damage.');
  const bytes = await store.getBytes({ bucket: BUCKET, key }, { maxBytes: 2 ** 28 });
  const damaged = bytes === null ? null : body(bytes);
  if (damaged === null) await store.deleteAll(BUCKET, [key]);
  else await store.put({ bucket: BUCKET, key }, damaged);
}

const damaged = ['checkpoint:end', 'upload:begin'].flatMap((name) =>
  Object.entries(DAMAGES).map(([damage, how]): FaultCase => {
    const moment = momentOf(name);
    return {
      ...fromTheStart(`checkpoint-${damage}`, name, `${how.about}, and the pod is killed`, { prepare: nothing }),
      isDamaged: true,
      prepare: (scene) => scene.arm(moment),
      reach: (scene) => scene.reach(moment),
      strike: async (scene, { pid }) => {
        await (pid === null ? undefined : scene.world.podWithProcess(pid))?.worker.kill();
        await damageNewest(scene, how);
      },
    };
  }),
);

/** A pod of a newer version has been here and was taken out of service, or one of a version that nobody remembers. */
const FORMATS = { newer: 2, older: 0 };

const otherFormat = Object.entries(FORMATS).map(([name, schema]): FaultCase => {
  const moment = momentOf('checkpoint:end');
  return fromTheStart(
    `checkpoint-of-${name}-format`,
    moment.name,
    `the newest manifest has a ${name} format, and the pod is killed`,
    {
      ...{ outcome: 'failed', errorCode: 'CHECKPOINT_INCOMPATIBLE', isDamaged: true },
      prepare: (scene) => scene.arm(moment),
      reach: (scene) => scene.reach(moment),
      strike: async (scene, { pid }) => {
        await (pid === null ? undefined : scene.world.podWithProcess(pid))?.worker.kill();
        const body = (bytes: Buffer) => Buffer.from(bytes.toString().replace('"schema":1', `"schema":${schema}`));
        await damageNewest(scene, { about: '', part: 'manifests', body });
      },
    },
  );
});

/** Every case, in the order of the table. */
export const CASES: readonly FaultCase[] = [
  ...struckAtMoments,
  ...storeSpoilt,
  ...damaged,
  ...otherFormat,
  ...backendIll,
  ...progressIll,
  ...messages,
];
