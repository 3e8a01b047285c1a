import { loadConfig } from '../common/config.ts';
import { reportTable } from '../native/trainer/report-table.ts';
import { nonEmptyOption, parseOptions, requireOption } from './command.ts';
import type { Command } from './command.ts';
import { lookAtPictures } from './look-at-pictures.ts';
import { readRecipeFile } from './recipe-file.ts';

const HELP = `Usage: brushwork inspect --images <dir> [options]

Looks at every picture and caption as brushwork train would, needs neither model nor GPU, and tells at once what is
done to each, what can't be used (!) and what is doubtful (?): too small, too big, damaged, one colour, copies of one
another, captions missing or too long. Ends with exit code 1 when a picture can't be used.

Options:
  --images     directory of .jpg, .png and .webp files; <stem>.txt beside a picture holds its caption
  --config     JSON file as for brushwork train; resolution, resize_mode, repeats, trigger_word and
               validation_pictures count here
  --caption    for pictures without a text file; default: training.instancePrompt of the service's configuration
  --json       print the report as JSON
`;

/** `brushwork inspect`. */
export const inspectCommand: Command = {
  summary: 'Look at a directory of pictures before training on it',
  help: HELP,
  async run(args) {
    const options = parseOptions(args, {
      images: { type: 'string' },
      config: { type: 'string' },
      caption: { type: 'string' },
      json: { type: 'boolean', default: false },
    });
    const images = requireOption('--images', options.images);
    const { training } = loadConfig({ roles: [] });
    const recipe = { ...training.recipe, ...readRecipeFile(nonEmptyOption('--config', options.config)) };
    const fallbackCaption = options.caption ?? training.instancePrompt;
    const { report, config } = await lookAtPictures(images, recipe, fallbackCaption);
    const text = options.json ? JSON.stringify(report, null, 2) : reportTable(report, config);
    process.stdout.write(`${text}\n`);
    return report.pictures.some(({ faults }) => faults.length > 0) ? 1 : 0;
  },
};
