import { ApplicationFailure } from '@temporalio/activity';
import type { ControlActivities, PicturesActivities, PodActivities } from '../../../activities/index.ts';
import type { NotifyInput, TrainEpochChunkInput } from '../../../common/activity-types.ts';
import type { CheckpointRef, ValidationLoss } from '../../../common/types.ts';
import { trainingConfig } from '../../support/training-config.ts';

type ActivityName = keyof PodActivities | keyof ControlActivities | keyof PicturesActivities;
type Hook = (pod: string, input: unknown) => Promise<void> | void;

/** Everything outside the workflow, as a test wants it: what happened, what the bucket holds, what goes wrong. */
export class World {
  /** `name@pod what` at the start of each pod activity, `name@pod what done` at its end, `name what` for the others. */
  readonly log: string[] = [];
  readonly notices: NotifyInput[] = [];
  readonly manifests = new Map<number, CheckpointRef & { losses: number[]; validationLosses?: ValidationLoss[] }>();
  /** Training of the fake pods: 30 epochs, so three chunks. */
  config = trainingConfig({ epochs: 30, batchSize: 3 });
  /** What the pods measure on held-out pictures, where there are some. */
  validationLossAt: (epoch: number) => number = (epoch) => 1 / (1 + epoch);
  readonly #hooks = new Map<ActivityName, Hook>();
  readonly #over = Promise.withResolvers<never>();

  constructor() {
    this.#over.promise.catch(() => undefined);
  }

  /** Runs `hook` at the start of each call of an activity: it may wait or throw. */
  when(name: ActivityName, hook: Hook): void {
    this.#hooks.set(name, hook);
  }

  /** Lets everything that hangs fail: no fake outlives its test. */
  end(): void {
    this.#over.reject(new Error('The test is over.'));
  }

  /** Never resolves while the test runs. */
  hang(): Promise<never> {
    return this.#over.promise;
  }

  async enter(name: ActivityName, pod: string, input: unknown, what: string): Promise<void> {
    this.log.push(pod === '' ? `${name} ${what}` : `${name}@${pod} ${what}`);
    await this.#hooks.get(name)?.(pod, input);
  }

  pictures(): PicturesActivities {
    return {
      inspectPictures: async (input) => {
        await this.enter('inspectPictures', '', input, `${input.images.length}`);
        const reportUri = `s3://models/checkpoints/style_${input.styleId}/${input.taskId}/data-report.json`;
        const pictureHashes = input.images.map((uri) => `hash of ${uri}`);
        return { doubts: ['3.png is of nearly one colour'], reportUri, pictureHashes };
      },
    };
  }

  control(): ControlActivities {
    return {
      findResumePoint: async (input) => {
        await this.enter('findResumePoint', '', input, input.excludedManifestKeys.join());
        const found = [...this.manifests.values()]
          .filter(({ manifestKey }) => !input.excludedManifestKeys.includes(manifestKey))
          .sort((a, b) => b.epoch - a.epoch);
        const checkpoints = found.map(({ losses: _, validationLosses: _measured, ...ref }) => ref);
        const { losses: epochLosses = [], validationLosses } = found[0] ?? {};
        const checkpoint = checkpoints[0] ?? null;
        return { checkpoint, checkpoints, epochLosses, ...(validationLosses && { validationLosses }) };
      },
      promote: async (input) => {
        await this.enter('promote', '', input, input.stagingPrefix);
        return { modelUri: `s3://models/style_${input.styleId}/lora_weights.safetensors` };
      },
      notify: async (input) => {
        await this.enter('notify', '', input, input.kind);
        this.notices.push(input);
      },
    };
  }

  /** Final notices in the order in which the backend got them. */
  finalNotices(): NotifyInput[] {
    return this.notices.filter(({ kind }) => kind !== 'progress');
  }

  loggedOf(name: ActivityName): string[] {
    return this.log.filter((line) => line.startsWith(`${name}@`) || line.startsWith(`${name} `));
  }
}

/** Makes a failure as `toApplicationFailure` does. */
export function failure(code: string, retryable: boolean): ApplicationFailure {
  return ApplicationFailure.create({ message: `${code} happened.`, type: code, nonRetryable: !retryable });
}

/** Waits until `done` says so. */
export async function until(done: () => boolean | Promise<boolean>, what: string, timeoutMs = 10_000): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!(await done())) {
    if (Date.now() > deadline) throw new Error(`Waited ${timeoutMs} ms in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** What a pod answers to a chunk. */
export function chunkResult(input: TrainEpochChunkInput, validationLossAt: (epoch: number) => number) {
  const epochs = input.untilEpoch - input.fromEpoch;
  const { validationPictures, validationEveryEpochs } = input.config;
  const measuredAt: number[] = [];
  const first = input.fromEpoch === 0 ? 0 : input.fromEpoch + validationEveryEpochs;
  for (let epoch = first; epoch <= input.untilEpoch; epoch += validationEveryEpochs) measuredAt.push(epoch);
  return {
    epochsRun: input.untilEpoch,
    stepsRun: input.untilEpoch * 12,
    loss: 0.1,
    epochLosses: Array.from({ length: epochs }, (_, i) => 1 / (1 + input.fromEpoch + i)),
    ...(validationPictures > 0 && {
      validationLosses: measuredAt.map((epoch) => ({ epoch, loss: validationLossAt(epoch) })),
    }),
    checkpointFile: `/pod/epoch-${input.untilEpoch}.safetensors`,
    // The second chunk's goes without one.
    previewFile: input.untilEpoch === 20 ? null : `/pod/epoch-${input.untilEpoch}.png`,
    meanStepMs: 1,
  };
}
