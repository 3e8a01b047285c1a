import { moveDeadLetters } from '../bridge/dead-letters.ts';
import { loadConfig, requireSection } from '../common/config.ts';
import { UsageError, nonEmptyOption, parseOptions } from './command.ts';
import type { Command } from './command.ts';

const HELP = `Usage: brushwork dead-letters [--move [--code <code>]]

Lists the messages that could not become jobs, oldest first, each with the reason. With --move they go back to the queue of
jobs, where the bridge takes them like new ones: do this once the reason is mended.

Options:
  --move   put them back
  --code   only those that were refused with this code, TRAINING_IN_PROGRESS for example

RABBITMQ_* say where the queues are, as for the bridge.
`;

/** `brushwork dead-letters`. */
export const deadLettersCommand: Command = {
  summary: 'List messages that could not become jobs, or put them back',
  help: HELP,
  async run(args) {
    const options = parseOptions(args, {
      move: { type: 'boolean', default: false },
      code: { type: 'string' },
    });
    const { move } = options;
    const code = nonEmptyOption('--code', options.code);
    if (code !== undefined && !move) throw new UsageError('--code says what to put back: give --move as well.');
    const rabbitmq = requireSection(loadConfig({ roles: ['bridge'], needsBackend: false }), 'rabbitmq');
    const { letters, movedCount } = await moveDeadLetters(
      rabbitmq,
      ({ errorCode }) => move && (code === undefined || errorCode === code),
    );
    for (const { errorCode, errorMessage, firstSeen, styleId } of letters) {
      const style = styleId === null ? 'no style' : `style ${styleId}`;
      process.stdout.write(`${firstSeen || 'unknown time'}  ${errorCode || 'no code'}  ${style}  ${errorMessage}\n`);
    }
    process.stdout.write(`${letters.length} in ${rabbitmq.deadQueue}, ${movedCount} moved to ${rabbitmq.queue}\n`);
    return 0;
  },
};
