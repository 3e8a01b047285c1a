import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import {
  UsageError,
  integerOption,
  nonEmptyOption,
  numberOption,
  parseOptions,
  requireOption,
} from '../../../cli/command.ts';
import { deadLettersCommand } from '../../../cli/dead-letters.ts';
import { inspectCommand } from '../../../cli/inspect.ts';
import { makeBaseModelCommand } from '../../../cli/make-base-model.ts';
import { sampleCommand } from '../../../cli/sample.ts';
import { trainCommand } from '../../../cli/train.ts';
import { workerCommand } from '../../../cli/worker.ts';
import { ROLES } from '../../../common/config-types.ts';
import { TRAINING_CONFIG_KEYS } from '../../../common/training-config-keys.ts';

const CLI = path.join(import.meta.dirname, '../../../cli/main.ts');

const TRAIN = '--model a --images b --output c'.split(' ');
const SAMPLE = '--model a --output b --prompt c'.split(' ');

function brushwork(...args: string[]): { status: number | null; stdout: string; stderr: string } {
  return brushworkWith({}, ...args);
}

function brushworkWith(variables: Record<string, string>, ...args: string[]): ReturnType<typeof brushwork> {
  return spawnSync(process.execPath, [CLI, ...args], { encoding: 'utf8', env: { ...process.env, ...variables } });
}

describe('cli/command', () => {
  it('reads options', () => {
    const options = { model: { type: 'string' }, resume: { type: 'boolean', default: false } } as const;
    assert.deepEqual({ ...parseOptions(['--model', 'a'], options) }, { model: 'a', resume: false });
    assert.deepEqual({ ...parseOptions(['--model=b', '--resume'], options) }, { model: 'b', resume: true });
  });

  it('takes negative numbers as values, and the last of an option that is given twice', () => {
    const options = { seed: { type: 'string' }, prompt: { type: 'string', multiple: true } } as const;
    assert.deepEqual({ ...parseOptions(['--seed', '-1'], options) }, { seed: '-1' });
    assert.deepEqual({ ...parseOptions(['--seed', '-.5', '--seed=--x'], options) }, { seed: '--x' });
    assert.deepEqual({ ...parseOptions(['--prompt', 'a', '--prompt', 'b'], options) }, { prompt: ['a', 'b'] });
  });

  for (const [what, args, complaint] of [
    ['an unknown option', ['--modle', 'a'], 'There is no option --modle; did you mean --model?'],
    ['an option like none', ['--colour=a'], 'There is no option --colour.'],
    ['one letter', ['-m', 'a'], 'There is no option -m.'],
    ['a name that every object has', ['--constructor'], 'There is no option --constructor.'],
    ['an option without its value', ['--model'], '--model has no value.'],
    [
      'an option before the next one',
      ['--model', '--resume'],
      '--model has no value; one that begins with a dash is written --model=--resume.',
    ],
    ['a value of a flag', ['--resume=yes'], '--resume takes no value.'],
    ['a word that belongs to no option', ['a'], '"a" belongs to no option; a value with spaces needs quotes.'],
    [
      'the same behind two dashes',
      ['--', '--model'],
      '"--model" belongs to no option; a value with spaces needs quotes.',
    ],
  ] as const) {
    it(`refuses ${what}`, () => {
      const options = { model: { type: 'string' }, resume: { type: 'boolean' } } as const;
      assert.throws(
        () => parseOptions([...args], options),
        (error) => error instanceof UsageError && error.message === complaint,
      );
    });
  }

  it('tells an empty value from none', () => {
    assert.equal(nonEmptyOption('--config', undefined), undefined);
    assert.equal(nonEmptyOption('--config', 'a'), 'a');
    assert.throws(() => nonEmptyOption('--config', ''), /^Error: --config is empty\.$/);
  });

  it('names an option that is missing or empty', () => {
    assert.equal(requireOption('--model', 'a'), 'a');
    for (const value of [undefined, ''])
      assert.throws(() => requireOption('--model', value), /^Error: --model is missing/);
  });

  it('reads whole numbers in their range only', () => {
    assert.equal(integerOption('--seed', '7', 0, 10), 7);
    for (const text of ['', '-1', '11', '1.5', '1e3', 'x', ' 7']) {
      assert.throws(() => integerOption('--seed', text, 0, 10), /--seed must be a whole number from 0 to 10/);
    }
  });

  it('reads numbers in their range only', () => {
    assert.equal(numberOption('--guidance', '7.5', 0, 10), 7.5);
    for (const text of ['', ' ', '-1', '10.1', 'NaN', 'Infinity', 'x']) {
      assert.throws(() => numberOption('--guidance', text, 0, 10), /--guidance must be a number from 0 to 10/);
    }
  });
});

describe('the brushwork command', function () {
  this.timeout(60_000);

  for (const [name, command, args, complaint] of [
    ['train without --images', trainCommand, ['--model', 'a', '--output', 'b'], /--images is missing/],
    [
      'train with threads that are none',
      trainCommand,
      [...'--model a --images b --output c --threads two'.split(' ')],
      /--threads/,
    ],
    ['sample without --prompt', sampleCommand, [...'--model a --output b'.split(' ')], /--prompt is missing/],
    [
      'sample with a LoRA that is not there',
      sampleCommand,
      [...SAMPLE, '--lora', 'no/file'],
      /--lora no\/file does not/,
    ],
    ['sample with a directory of another kind', sampleCommand, [...SAMPLE, '--lora', '.'], /no adapter_config\.json/],
    ['sample with another sampler', sampleCommand, [...SAMPLE, '--sampler', 'euler'], /--sampler must be dpm\+\+ or/],
    ['sample with no size', sampleCommand, [...SAMPLE, '--size', '0'], /^--size must be a whole number from 8 to/],
    ['sample with a width that is none', sampleCommand, [...SAMPLE, '--width', 'x'], /^--width must be/],
    ['sample with no steps', sampleCommand, [...SAMPLE, '--steps', '0'], /--steps must be a whole number from 1 to/],
    ['sample with a guidance that is none', sampleCommand, [...SAMPLE, '--guidance', 'x'], /--guidance must be a/],
    [
      'train into its pictures',
      trainCommand,
      '--model a --images b --output ./b/'.split(' '),
      /directory of the pictures/,
    ],
    ['train with an empty --config', trainCommand, [...TRAIN, '--config', ''], /--config is empty/],
    ['inspect with an empty --config', inspectCommand, ['--images', 'a', '--config='], /--config is empty/],
    ['train with an empty --model', trainCommand, [...TRAIN, '--model='], /--model is empty/],
    ['sample with an empty --model', sampleCommand, [...SAMPLE, '--model='], /--model is empty/],
    ['sample with a negative seed', sampleCommand, [...SAMPLE, '--seed', '-1'], /--seed must be .*, but is "-1"/],
    ['sample with an empty --lora', sampleCommand, [...SAMPLE, '--lora', ''], /--lora is empty/],
    ['dead-letters with a code and no --move', deadLettersCommand, ['--code', 'INTERNAL'], /give --move as well/],
    ['dead-letters with an empty code', deadLettersCommand, ['--move', '--code', ''], /--code is empty/],
    ['worker with an unknown role among others', workerCommand, ['--role', 'boss', '--role', 'pod'], /not "boss"/],
    ['inspect without --images', inspectCommand, ['--json'], /--images is missing/],
    ['worker with an unknown role', workerCommand, ['--role', 'pod,boss'], /not "boss"/],
    [
      'make-base-model with an unknown preset',
      makeBaseModelCommand,
      ['--preset', 'big', '--output', 'a'],
      /tiny or small/,
    ],
    ['make-base-model without --output', makeBaseModelCommand, ['--preset', 'tiny'], /--output is missing/],
  ] as const) {
    it(`refuses ${name}`, async () => {
      await assert.rejects(
        command.run([...args]),
        (error) => error instanceof UsageError && complaint.test(error.message),
      );
    });
  }

  it('documents each option of each command', () => {
    for (const option of [
      '--model',
      '--images',
      '--output',
      '--config',
      '--caption',
      '--threads',
      '--previews',
      '--resume',
    ]) {
      assert.ok(trainCommand.help.includes(`\n  ${option} `), option);
    }
    for (const key of Object.keys(TRAINING_CONFIG_KEYS)) assert.ok(trainCommand.help.includes(key), key);
    for (const option of ['--images', '--config', '--caption', '--json']) {
      assert.ok(inspectCommand.help.includes(`\n  ${option} `), option);
    }
    for (const option of [
      ...['--model', '--lora', '--prompt', '--output', '--negative-prompt', '--count', '--seed', '--steps'],
      ...['--guidance', '--sampler', '--size', '--width, --height', '--threads'],
    ]) {
      assert.ok(sampleCommand.help.includes(`\n  ${option} `), option);
    }
    for (const role of ROLES) assert.ok(workerCommand.help.includes(`\n             ${role} `), role);
    for (const option of ['--preset', '--output', '--seed']) {
      assert.ok(makeBaseModelCommand.help.includes(`\n  ${option} `), option);
    }
  });

  it('fits the width of a terminal', () => {
    for (const { help } of [trainCommand, sampleCommand, inspectCommand, workerCommand, makeBaseModelCommand]) {
      for (const line of help.split('\n')) assert.ok(line.length <= 128, line);
    }
  });

  it('shows its help, and that of a command, on standard output', () => {
    const own = brushwork('--help');
    assert.equal(own.status, 0);
    for (const [name, { summary }] of Object.entries({
      train: trainCommand,
      inspect: inspectCommand,
      worker: workerCommand,
    })) {
      assert.ok(own.stdout.includes(name) && own.stdout.includes(summary), name);
    }
    const train = brushwork('train', '--model', 'a', '--help');
    assert.deepEqual([train.status, train.stdout, train.stderr], [0, trainCommand.help, '']);
  });

  it('exits with 2 and one line when it is called wrongly', () => {
    for (const [args, help] of [
      [['paint'], 'brushwork --help'],
      [['tarin'], 'brushwork --help'],
      [['constructor'], 'brushwork --help'],
      [['train', '--what'], 'brushwork train --help'],
      [['make-base-model'], 'brushwork make-base-model --help'],
    ] as const) {
      const { status, stdout, stderr } = brushwork(...args);
      assert.equal(status, 2, args.join(' '));
      assert.equal(stdout, '');
      assert.match(stderr, new RegExp(`^[^\\n]+ See: ${help}\\n$`));
    }
  });

  it('says how a base model can be named where none is, and which keys its bucket wants', () => {
    const keys = { AWS_ACCESS_KEY_ID: '', AWS_SECRET_ACCESS_KEY: '' };
    for (const args of [
      ['train', '--images', 'a', '--output', 'b'],
      ['sample', '--prompt', 'a'],
    ]) {
      const none = brushworkWith({ BASE_MODEL: '' }, ...args);
      assert.equal(none.status, 2);
      assert.match(none.stderr, /^--model is missing, and BASE_MODEL is not set\. See: brushwork \w+ --help\n$/);
      for (const [BASE_MODEL, more] of [
        ['s3://models/sd15', []],
        ['', ['--model', 's3://models/sd15']],
      ] as const) {
        const { status, stderr } = brushworkWith({ ...keys, BASE_MODEL }, ...args, ...more);
        assert.equal(status, 1);
        assert.match(
          stderr,
          /^The configuration has 2 faults:\n.*AWS_ACCESS_KEY_ID .* base model s3:\/\/models\/sd15\./,
        );
      }
    }
  });

  it('names the command that was meant', () => {
    assert.match(brushwork('tarin').stderr, /^There is no command "tarin"; did you mean train\?/);
  });

  it('says in one line that RabbitMQ is down, and which variables say where it is', () => {
    // All that the command needs: it calls no backend.
    const env = { ...process.env, RABBITMQ_URL: 'amqp://guest:guest@127.0.0.1:1', BACKEND_API_URL: '' };
    const { status, stderr } = spawnSync(process.execPath, [CLI, 'dead-letters'], { encoding: 'utf8', env });
    assert.equal(status, 1);
    assert.match(
      stderr,
      /^RabbitMQ at 127\.0\.0\.1:1 can't be reached: connect ECONNREFUSED .*RABBITMQ_HOST and RABBITMQ_PORT.*\n$/,
    );
  });

  it('makes no base model where a file is', async () => {
    const args = ['--preset', 'tiny', '--output', CLI];
    await assert.rejects(makeBaseModelCommand.run(args), { code: 'INVALID_REQUEST', message: /main\.ts is a file/ });
  });

  it('ends without a word when nobody reads what it prints, and says so when it can not be written', () => {
    const pictures = path.join(import.meta.dirname, '../../fixtures/pictures');
    const inspect = (rest: string) =>
      spawnSync('bash', ['-c', `"$0" "$1" inspect --images "$2" ${rest}`, process.execPath, CLI, pictures], {
        encoding: 'utf8',
      });
    const unread = inspect('| true; exit ${PIPESTATUS[0]}');
    assert.deepEqual([unread.status, unread.stderr], [141, '']);
    const full = inspect('> /dev/full');
    assert.equal(full.status, 1);
    assert.match(full.stderr, /^Standard output can't be written: .*ENOSPC.*\n$/);
  });

  it('exits with 2 and its help when it is called without a command', () => {
    const { status, stdout } = brushwork();
    assert.equal(status, 2);
    assert.match(stdout, /^Usage: brushwork <command>/);
  });
});
