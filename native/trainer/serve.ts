import { toBrushworkError } from '../../common/errors.ts';
import { enableFaultPoints } from '../../common/fault-point.ts';
import type { StepReport } from '../../common/trainer.ts';
import type { NativeAddon } from '../native.ts';
import type {
  TrainerCommand,
  TrainerMessage,
  TrainerProcessArguments,
  TrainerResults,
  WorkerMessage,
} from './messages.ts';
import { StepBatcher } from './step-batcher.ts';
import { TrainerServer } from './trainer-server.ts';

/**
 * Makes this process a trainer: answers the commands of the process that forked it, until that one goes away. It then
 * ends at once, writing nothing: whoever took over the job may already write elsewhere.
 *
 * @param loadAddon - loads the native addon; called once, its failure is the answer to every command
 */
export function serveTrainer(loadAddon: () => Promise<NativeAddon>): void {
  // SIGKILL, because an orderly exit would wait for native threads that are in the middle of a step.
  const end = (): void => void process.kill(process.pid, 'SIGKILL');
  process.on('disconnect', end);
  if (!process.connected) end();
  // Ctrl-C and service managers signal the whole process group; only the parent decides when the trainer ends.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);

  const options = JSON.parse(process.argv[2] ?? '') as TrainerProcessArguments;
  if (options.faultPoints !== null) enableFaultPoints(options.faultPoints);
  const server = loadAddon().then((addon) => new TrainerServer(addon, options));
  // Each command that awaits it reports the failure; until one does, it must not count as unhandled.
  server.catch(() => undefined);
  const stopped = new Set<number>();
  let running: number | null = null;
  let lastDone = 0;
  let queue = Promise.resolve();

  const execute = async (id: number, command: TrainerCommand): Promise<void> => {
    try {
      const trainer = await server;
      running = id;
      const result = await run(trainer, id, command, stopped.has(id));
      send({ kind: 'result', id, result });
    } catch (error) {
      const { code, message } = toBrushworkError(error);
      send({ kind: 'failure', id, code, message });
    } finally {
      running = null;
      lastDone = id;
      stopped.delete(id);
    }
  };

  process.on('message', (message: WorkerMessage) => {
    if (message.kind === 'command') {
      queue = queue.then(() => execute(message.id, message.command));
      return;
    }
    if (running === message.id) void server.then((trainer) => trainer.stop());
    else if (message.id > lastDone) stopped.add(message.id);
  });
}

async function run(
  trainer: TrainerServer,
  id: number,
  command: TrainerCommand,
  stoppedBefore: boolean,
): Promise<TrainerResults[keyof TrainerResults]> {
  switch (command.kind) {
    case 'runtime':
      return trainer.runtime();
    case 'prepare':
      return trainer.prepare(command.job, command.checkpointFile);
    case 'train': {
      const batcher = new StepBatcher((reports) => send({ kind: 'steps', id, reports }));
      try {
        const onStep = (report: StepReport) => batcher.push(report);
        return await stoppable(trainer, stoppedBefore, () => trainer.train(command.untilEpoch, onStep));
      } finally {
        batcher.flush();
      }
    }
    case 'validate':
      return stoppable(trainer, stoppedBefore, () => trainer.validate());
    case 'saveCheckpoint':
      return trainer.saveCheckpoint(command.file);
    case 'exportWeights':
      await trainer.exportWeights(command.directory);
      return null;
    case 'openForDrawing':
      await trainer.openForDrawing(command.model);
      return null;
    case 'sample':
      return stoppable(trainer, stoppedBefore, () => trainer.sample(command.request));
    case 'drawSheet':
      return stoppable(trainer, stoppedBefore, () => trainer.drawSheet(command.request));
  }
}

/** A stop that came before its command counts as soon as that has begun. */
function stoppable<T>(trainer: TrainerServer, stoppedBefore: boolean, begin: () => Promise<T>): Promise<T> {
  const running = begin();
  if (stoppedBefore) trainer.stop();
  return running;
}

function send(message: TrainerMessage): void {
  // A full or broken pipe is the parent's end, which `disconnect` reports.
  process.send?.(message, undefined, undefined, () => undefined);
}
