import { ROLES } from '../common/config-types.ts';
import type { Role } from '../common/config-types.ts';
import { loadConfig, requireSection } from '../common/config.ts';
import { enableFaultPoints } from '../common/fault-point.ts';
import { configSecrets, createLogger } from '../common/logger.ts';
import { TrainerProcess } from '../native/trainer/trainer-process.ts';
import { resolveBaseModel } from '../worker/base-model.ts';
import { runWorker } from '../worker/main.ts';
import { createObjectStore } from '../worker/object-store.ts';
import { UsageError, parseOptions } from './command.ts';
import type { Command } from './command.ts';

const HELP = `Usage: brushwork worker [--role <roles>]

Runs one or more parts of the service until SIGTERM or Ctrl-C. Logs are JSON lines on standard output.

Options:
  --role     any of ${ROLES.join(', ')}, separated by commas or each with a --role; default: all
             bridge    takes job messages from RabbitMQ and starts workflows
             control   runs the workflows, publishes weights, tells the backend
             pod       trains, one job at a time; one process per GPU

SIGUSR2 drains a pod: it takes no further job, trains the one that it has to its end, and the process ends with exit code 0,
its other roles too. A process without a pod takes it for SIGTERM.

Settings come from temporal.yaml, from the file that BRUSHWORK_CONFIG names, and from the environment (.env.example
lists the variables; a file .env in the current directory counts too).
`;

/** Exit code of a process that a signal ended in good order. */
const STOPPED = 0;

function parseRoles(texts: readonly string[]): Role[] {
  const names = new Set(texts.flatMap((text) => text.split(',').map((name) => name.trim())));
  return [...names].map((name) => {
    const role = ROLES.find((known) => known === name);
    if (role === undefined) throw new UsageError(`--role knows ${ROLES.join(', ')}, but not "${name}".`);
    return role;
  });
}

/** `brushwork worker`. */
export const workerCommand: Command = {
  summary: 'Run the service: bridge, control worker, pod worker, or any mix',
  help: HELP,
  async run(args) {
    const options = parseOptions(args, { role: { type: 'string', multiple: true } });
    const roles = parseRoles(options.role ?? ROLES);
    const config = loadConfig({ roles });
    if (config.faultPoints !== null) enableFaultPoints(config.faultPoints);
    const logger = createLogger({ level: config.logLevel, secrets: configSecrets(config) });
    const stop = new AbortController();
    const drain = new AbortController();
    const stopAt = (name: NodeJS.Signals) => {
      logger.info({ signal: name }, 'stopping');
      stop.abort();
    };
    for (const name of ['SIGINT', 'SIGTERM'] as const) process.on(name, stopAt);
    process.on('SIGUSR2', (name) => {
      if (roles.includes('pod')) drain.abort();
      else stopAt(name);
    });
    await runWorker({
      roles,
      config,
      logger,
      signal: stop.signal,
      drain: drain.signal,
      pod: (podLogger) => ({
        trainer: new TrainerProcess({
          device: config.trainer.device,
          threadCount: config.trainer.cpuThreads,
          cudaVisibleDevices: config.trainer.cudaVisibleDevices,
          faultPoints: config.faultPoints,
          logger: podLogger,
        }),
        resolveBaseModel: async () => {
          const store = createObjectStore(requireSection(config, 'storage'));
          try {
            return await resolveBaseModel(requireSection(config, 'pod').baseModel, {
              ...config.trainer,
              store,
              logger: podLogger,
              signal: stop.signal,
            });
          } finally {
            store.close();
          }
        },
      }),
    });
    return STOPPED;
  },
};
