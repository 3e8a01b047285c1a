import { randomBytes, randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { Client, Connection } from '@temporalio/client';
import { stringify } from 'yaml';
import { ProgressDisplay, downloadDisplay } from '../../cli/progress.ts';
import { loadConfig, requireSection } from '../../common/config.ts';
import { createLogger } from '../../common/logger.ts';
import { resolveBaseModel } from '../../worker/base-model.ts';
import { createObjectStore } from '../../worker/object-store.ts';
import { startBackend } from '../stack/backend.ts';
import { publishJob } from '../stack/publisher.ts';
import { startStack } from '../stack/stack.ts';
import { smallBaseModel } from './base-model.ts';
import type { DemoOptions } from './options.ts';
import { drawLossCurve, fetchPreview, fetchWeights, uploadPictures } from './results.ts';
import { serviceProcesses, watchPart } from './service.ts';
import { watchJob } from './watch.ts';

const PICTURES = path.join(import.meta.dirname, '../../test/fixtures/pictures');
const BUCKET = 'styles';
const QUEUE = 'model_training';
const STYLE_ID = 1;

/** What contact sheets show: things that are in none of the pictures. */
const PROMPTS = ['a landscape photograph of mountains', 'a photograph of a cup of coffee on a wooden table'];

/** Where a demo writes and what it tells. */
export interface DemoContext {
  options: DemoOptions;
  /** Whether everything stays up once the style is trained. */
  staysUp: boolean;
  /** Private to this run: outputs, logs and the data of all parts. */
  directory: string;
  /** Tells a line. */
  say: (line: string) => void;
  /** Ends the demo. */
  signal: AbortSignal;
  /** Registers what must be ended with the demo; the last one is ended first. */
  onEnd: (end: () => Promise<void>) => void;
}

/**
 * Trains one style from its message to its weights, on real parts.
 *
 * @param context - see {@link DemoContext}
 * @returns the lines to end with
 */
export async function runDemo(context: DemoContext): Promise<string[]> {
  const { options, directory, say, signal } = context;
  const taskId = randomUUID();
  const token = randomBytes(24).toString('hex');
  if (options.model !== null) {
    say(`looking for the base model ${options.model}`);
    const logger = createLogger({ level: 'warn', secrets: [] });
    const { trainer } = loadConfig({ roles: [] });
    await resolveBaseModel(options.model, { ...trainer, logger, signal, onProgress: downloadDisplay(process.stdout) });
  }
  say('starting Temporal, RabbitMQ, an S3 server and a small backend');
  const [stack, backend, model] = await Promise.all([
    startStack({ directory: path.join(directory, 'parts'), buckets: [BUCKET] }).then((started) => {
      context.onEnd(() => started.stop());
      return started;
    }),
    startBackend({ token }).then((started) => {
      context.onEnd(() => started.stop());
      return started;
    }),
    options.model ?? smallBaseModel(),
  ]);
  signal.throwIfAborted();
  const env = {
    ...stack.environment(),
    BACKEND_API_URL: backend.origin,
    INTERNAL_API_TOKEN: token,
    BASE_MODEL: model,
    BRUSHWORK_WORK_DIRECTORY: path.join(directory, 'work'),
    BRUSHWORK_CONFIG: writeOverrides(directory, options),
    ...inherited(
      'XDG_CACHE_HOME',
      'BRUSHWORK_DEVICE',
      'BRUSHWORK_CPU_THREADS',
      'CUDA_VISIBLE_DEVICES',
      'HF_ENDPOINT',
      'HF_TOKEN',
    ),
  };
  const config = loadConfig({ env, roles: ['control', 'pod'] });
  const store = createObjectStore(requireSection(config, 'storage'));
  context.onEnd(async () => store.close());
  // Not closed: a call that the watch below still waits for would throw where nobody can catch it.
  const connection = await Connection.connect({ address: stack.temporalAddress });

  say('starting bridge, control worker and pod; publishing the job');
  const service = serviceProcesses(env, path.join(directory, 'logs'));
  context.onEnd(async () => void (await Promise.all(service.map((part) => part.stop()))));
  const images = await uploadPictures(store, BUCKET, PICTURES, `pictures/style_${STYLE_ID}/`);
  await publishJob(stack.amqpUrl, QUEUE, {
    task_id: taskId,
    type: 'model_training',
    data: { style_id: STYLE_ID, images, parameters: { epochs: options.epochs } },
    webhook_url: backend.origin,
    created_at: new Date().toISOString(),
  });
  const workflowId = `train-style-${STYLE_ID}`;
  const webUi = `${stack.webUiUrl}/namespaces/default/workflows/${workflowId}`;
  say(`watch it in the Web UI: ${webUi}`);
  // A part that does not come up, or ends, ends the demo at once instead of leaving the job waiting.
  const done = new AbortController();
  const whileTraining = AbortSignal.any([signal, done.signal]);
  const broken = Promise.race([
    ...Object.values(stack.parts).map((part) => watchPart(part, whileTraining)),
    ...service.map((part) => part.start().then(() => watchPart(part, whileTraining))),
  ]);
  const handle = new Client({ connection }).workflow.getHandle(workflowId);
  const display = new ProgressDisplay(process.stdout);
  let trains = false;
  const events = {
    onPhase: (phase: string, reason: string | null) => {
      display.end();
      say(reason === null ? phase : `${phase}: ${reason}`);
    },
    onProgress: (progress: Parameters<typeof display.update>[0]) => {
      if (!trains) say('first training step done');
      trains = true;
      display.update(progress);
    },
    onLastStep: () => {
      display.end();
      say('all steps done: drawing the last contact sheet, writing the checkpoint');
    },
  };
  await Promise.race([watchJob(handle, events, whileTraining), broken]).finally(() => {
    done.abort();
    display.end();
  });
  await backend.waitFor(({ kind, accepted }) => kind === 'complete' && accepted);

  say('fetching the weights and the preview, drawing the loss curve');
  const weights = await fetchWeights(store, BUCKET, STYLE_ID, path.join(directory, 'weights'));
  const lossCurve = path.join(directory, 'loss.png');
  await drawLossCurve(handle, lossCurve);
  const preview = path.join(directory, 'preview.png');
  const hasPreview = await fetchPreview(store, BUCKET, handle, preview);
  const explanation = `(left: base model, right: trained${options.model === null ? '; a random base model draws noise' : ''})`;
  return [
    `weights:    ${weights}`,
    `loss curve: ${lossCurve}`,
    `preview:    ${hasPreview ? `${preview} ${explanation}` : 'none was drawn; why is in logs/pod.log'}`,
    ...(context.staysUp ? [`web ui:     ${webUi}`] : []),
  ];
}

/** What differs from `temporal.yaml`: small pictures for the small model, small jobs, progress every second. */
function writeOverrides(directory: string, { model }: DemoOptions): string {
  const file = path.join(directory, 'demo.yaml');
  const recipe = model === null ? { resolution: 256, learning_rate: 0.001 } : {};
  // Without a GPU a real model takes long to draw, but this is what one wants to see.
  const previews = { prompts: PROMPTS, steps: 8, guidance: 5, timeLimit: '2h' };
  const pod = { beat: '1s', heartbeatThrottle: '500ms', minFreeDiskMiB: 256 };
  writeFileSync(file, stringify({ training: { recipe }, previews, pod }));
  return file;
}

function inherited(...names: string[]): Record<string, string> {
  return Object.fromEntries(
    names.flatMap((name) => {
      const value = process.env[name];
      return value === undefined ? [] : [[name, value]];
    }),
  );
}
