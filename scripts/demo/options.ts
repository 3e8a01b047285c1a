import { integerOption, nonEmptyOption, parseOptions } from '../../cli/command.ts';

/** How the demo is run. */
export interface DemoOptions {
  /** Directory, single file or hub id of a base model, or null: a small random one is made. */
  model: string | null;
  epochs: number;
  /** End when the style is trained, also on a terminal. */
  exit: boolean;
  verbose: boolean;
}

const SMALL_MODEL_EPOCHS = 20;
const REAL_MODEL_EPOCHS = 100;

/** Text of `npm run demo -- --help`. */
export const DEMO_HELP = `Usage: npm run demo -- [options]

Trains a style on this machine with everything real: Temporal, RabbitMQ, an S3 server, bridge, control worker and pod.

Options:
  --model <model>                a real Stable Diffusion 1.5: a directory, a .safetensors file or a hub id; default: a small
                                 random model of the same structure
  --epochs <n>                   1 to 1000; default: ${SMALL_MODEL_EPOCHS}, with --model ${REAL_MODEL_EPOCHS}
  --exit                         end when the style is trained, also on a terminal
  --verbose                      tell how long each phase took
`;

/**
 * Reads the demo's command line.
 *
 * @param args - what follows the script's name
 * @returns the options, or null when help was asked for
 * @throws UsageError naming what can't be understood
 */
export function parseDemoOptions(args: string[]): DemoOptions | null {
  if (args.includes('--help') || args.includes('-h')) return null;
  const options = parseOptions(args, {
    model: { type: 'string' },
    epochs: { type: 'string' },
    exit: { type: 'boolean', default: false },
    verbose: { type: 'boolean', default: false },
  });
  const model = nonEmptyOption('--model', options.model) ?? null;
  const defaultEpochs = model === null ? SMALL_MODEL_EPOCHS : REAL_MODEL_EPOCHS;
  const epochs = integerOption('--epochs', options.epochs ?? String(defaultEpochs), 1, 1000);
  return { model, epochs, exit: options.exit, verbose: options.verbose };
}
