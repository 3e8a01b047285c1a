import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';
import sharp from 'sharp';
import { parse } from 'yaml';
import { readPreviews } from '../../common/config-previews.ts';
import { Section } from '../../common/config-source.ts';
import { ERROR_CLASSES } from '../../common/errors.ts';
import { TRAINING_CONFIG_KEYS } from '../../common/training-config-keys.ts';
import type { TrainingConfigKey } from '../../common/training-config-keys.ts';
import * as messages from '../../workflows/messages.ts';

const ROOT = path.join(import.meta.dirname, '../..');
const DOCUMENTS = [
  'README.md',
  'CHANGELOG.md',
  'THIRD_PARTY.md',
  'test/fidelity/README.md',
  'test/reference/README.md',
  ...readdirSync(path.join(ROOT, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];

/** Folders of the repository whose files are named in texts by their path from the root. */
const FOLDERS = 'activities|bridge|cli|common|docker|docs|native|scripts|test|worker|workflows';

/** Words in capitals that are neither error codes nor variables of the environment. */
const OTHER_CAPITALS = new Set(['PATH', 'ERROR_CLASSES', 'TRAINING_CONFIG_KEYS']);

const read = (file: string): string => readFileSync(path.join(ROOT, file), 'utf8');
const withoutBlocks = (text: string): string => text.replace(/^```.*?^```/gms, '');
const codeWords = (text: string): string[] =>
  [...withoutBlocks(text).matchAll(/`([^`\n]+)`/g)].map(([, word]) => word ?? '');

/** Cells of a table's rows, without head and rule, of all tables whose head begins with these columns. */
function tableRows(text: string, ...head: string[]): string[][] {
  const rows: string[][] = [];
  let inTable = false;
  for (const line of text.split('\n')) {
    if (!line.startsWith('|')) {
      inTable = false;
      continue;
    }
    const cells = line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim());
    if (head.every((name, i) => cells[i] === name)) inTable = true;
    else if (inTable && !/^-+$/.test(cells[0] ?? '')) rows.push(cells);
  }
  return rows;
}

/** Anchors that a page's headings get. */
function anchorsOf(text: string): string[] {
  return [...withoutBlocks(text).matchAll(/^#+ (.+)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replace(/[^\w\- ]/g, '')
      .replaceAll(' ', '-'),
  );
}

function keyRow(name: string, key: TrainingConfigKey): string[] {
  const value = key.default === null ? (key.nullable ? '`null`' : 'unset') : `\`${code(key.default)}\``;
  const kind = key.multipleOf > 0 ? `multiple of ${key.multipleOf}, ` : key.kind === 'integer' ? 'whole number, ' : '';
  const numbers = `${kind}${key.min} to ${key.max}`;
  const ranges = {
    integer: numbers,
    number: numbers,
    choice: key.choices.map((choice) => `\`${code(choice)}\``).join(', '),
    switch: '`true`, `false`',
    text: `${key.min} to ${key.max} characters`,
  };
  return [`\`${name}\``, value, ranges[key.kind] + (key.nullable ? ', or `null`' : ''), key.meaning];
}

/** A value as it is written in a configuration. */
function code(value: string | number | boolean): string {
  return typeof value === 'string' ? JSON.stringify(value) : String(value);
}

/** The same of any value. */
function written(value: unknown): string {
  return JSON.stringify(value).replaceAll('","', '", "');
}

function isSetting(settings: unknown, name: string): boolean {
  return name.split('.').every((part) => {
    if (typeof settings !== 'object' || settings === null || !Object.hasOwn(settings, part)) return false;
    settings = (settings as Record<string, unknown>)[part];
    return true;
  });
}

describe('docs', () => {
  for (const document of DOCUMENTS) {
    describe(document, () => {
      const text = read(document);

      it('links to files and headings that exist', () => {
        for (const [, target = ''] of withoutBlocks(text).matchAll(/\]\(([^)\s]+)\)/g)) {
          if (/^https?:/.test(target)) continue;
          const [file = '', anchor] = target.split('#');
          const linked = file === '' ? document : path.join(path.dirname(document), file);
          assert.ok(existsSync(path.join(ROOT, linked)), `${target} does not exist`);
          if (anchor !== undefined)
            assert.ok(anchorsOf(read(linked)).includes(anchor), `${target} has no such heading`);
        }
      });

      it('names files and folders that exist', () => {
        for (const word of codeWords(text)) {
          if (!new RegExp(`^(${FOLDERS})/[\\w./-]*$`).test(word)) continue;
          assert.ok(existsSync(path.join(ROOT, word)), `${word} does not exist`);
        }
      });

      it('names npm scripts that exist', () => {
        const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
        for (const [, name = ''] of text.matchAll(/npm run ([\w:-]+)/g)) assert.ok(Object.hasOwn(scripts, name), name);
      });

      it('names settings that exist', () => {
        const settings: unknown = parse(read('temporal.yaml'));
        const sections = Object.keys(settings as object).join('|');
        for (const word of codeWords(text)) {
          if (word === 'temporal.yaml' || !new RegExp(`^(${sections})\\.[\\w.]+$`).test(word)) continue;
          assert.ok(isSetting(settings, word), `temporal.yaml has no ${word}`);
        }
      });

      it('names error codes and variables that exist', () => {
        const variables = [...read('.env.example').matchAll(/^#?([A-Z][A-Z0-9_]+)=/gm)].map(([, name]) => name);
        const buildOptions = [...read('native/CMakeLists.txt').matchAll(/^option\((\w+)/gm)].map(([, name]) => name);
        const known = new Set([...Object.keys(ERROR_CLASSES), ...variables, ...buildOptions, ...OTHER_CAPITALS]);
        for (const word of codeWords(text)) {
          if (/^[A-Z][A-Z0-9]*_[A-Z0-9_]+$/.test(word)) assert.ok(known.has(word), `${word} is unknown`);
        }
      });
    });
  }

  it('errors.md tells of each code, and whether it is tried again', () => {
    const text = read('docs/errors.md');
    const expected = Object.entries(ERROR_CLASSES).map(([code, errorClass]) => [
      `[${code}](#${code.toLowerCase()})`,
      new errorClass('').retryable ? 'yes' : 'no',
    ]);
    assert.deepEqual(tableRows(text, 'code', 'retried'), expected);
    const headings = [...text.matchAll(/^### (.+)$/gm)].map(([, code]) => code);
    assert.deepEqual(headings.sort(), Object.keys(ERROR_CLASSES).sort());
    for (const section of text.split(/^### .+$/m).slice(1)) assert.ok(section.trim().length > 40, 'an empty section');
  });

  it('training.md lists the keys of a training configuration as they are', () => {
    const expected = Object.entries(TRAINING_CONFIG_KEYS).map(([name, key]) => keyRow(name, key));
    assert.deepEqual(tableRows(read('docs/training.md'), 'key', 'default', 'range'), expected);
  });

  it('drawing.md lists the settings of contact sheets as they are', () => {
    const { previews } = parse(read('temporal.yaml')) as { previews: Record<string, unknown> };
    const rows = tableRows(read('docs/drawing.md'), 'setting', 'default', 'range');
    const expected = Object.entries(previews).map(([name, value]) => [`\`${name}\``, `\`${written(value)}\``]);
    assert.deepEqual(
      rows.map(([name, value]) => [name, value]),
      expected,
    );
    const faultsWith = (name: string, value: unknown): string[] => {
      const faults: string[] = [];
      const root = new Section('temporal.yaml', { previews: { ...previews, [name]: value } }, faults);
      readPreviews({ root });
      return faults;
    };
    let limits = 0;
    for (const [name = '', , range = ''] of rows) {
      const [, step, min, max] =
        /^(?:whole number, |multiple of (\d+), )?(\d+) to (\d+)(?:, or `none`)?$/.exec(range) ?? [];
      if (min === undefined) continue;
      const key = name.slice(1, -1);
      const past = Number(step ?? 1);
      assert.deepEqual([...faultsWith(key, Number(min)), ...faultsWith(key, Number(max))], [], key);
      assert.equal(faultsWith(key, Number(min) - past).length, 1, key);
      assert.equal(faultsWith(key, Number(max) + past).length, 1, key);
      limits += 1;
    }
    assert.equal(limits, 5);
  });

  it('README.md names every key of a training configuration', () => {
    for (const name of Object.keys(TRAINING_CONFIG_KEYS)) assert.ok(codeWords(read('README.md')).includes(name), name);
  });

  it('operations.md explains every phase', () => {
    const [, union = ''] = /export type TrainPhase =([^;]+);/.exec(read('common/types.ts')) ?? [];
    const phases = [...union.matchAll(/'([\w-]+)'/g)].map(([, phase]) => `\`${phase}\``);
    assert.ok(phases.length > 5);
    const explained = tableRows(read('docs/operations.md'), 'phase').map(([phase]) => phase);
    assert.deepEqual(explained.sort(), phases.sort());
  });

  it('operations.md gives each command for temporal and for tctl, with names that the workflow knows', () => {
    const definitions = Object.values(messages).filter(({ name }) => name !== 'podHeld');
    const unmentioned = new Set(definitions.map(({ type, name }) => `${type} ${name}`));
    // `checkpoints` is asked for in the same way as `lossCurve`.
    unmentioned.delete('query checkpoints');
    const blocks = [...read('docs/operations.md').matchAll(/^```sh\n(.*?)^```/gms)].map(([, block = '']) => block);
    const paired = blocks.filter((block) => /^(temporal|tctl) workflow /m.test(block));
    assert.ok(paired.length > 10);
    for (const block of paired) {
      const [temporal = '', tctl = '', ...more] = block.trimEnd().split('\n');
      assert.match(temporal, /^temporal workflow \w+ /);
      assert.match(tctl, /^tctl workflow \w+ /);
      assert.deepEqual(more, []);
      assert.equal(temporal.split(' ')[2], tctl.split(' ')[2]);
      const [, verb = '', name] = / workflow (\w+) .*--name (\w+)/.exec(temporal) ?? [];
      if (name === undefined) continue;
      assert.ok(
        definitions.some((definition) => definition.type === verb && definition.name === name),
        `there is no ${verb} ${name}`,
      );
      assert.match(tctl, new RegExp(` (-n|-qt) ${name}$`));
      unmentioned.delete(`${verb} ${name}`);
    }
    assert.deepEqual([...unmentioned], []);
  });

  it('runbook.md tells of each signal, and gives each command for temporal and for tctl', () => {
    const text = read('docs/runbook.md');
    for (const { type, name } of Object.values(messages)) {
      if (type === 'signal' && name !== 'podHeld') assert.ok(codeWords(text).includes(name), name);
    }
    const blocks = [...text.matchAll(/^```sh\n(.*?)^```/gms)].map(([, block = '']) => block.trimEnd().split('\n'));
    // tctl has no commands for activities.
    const paired = blocks.filter(([first]) => /^temporal (?!activity )/.test(first ?? ''));
    assert.ok(paired.length > 2);
    for (const [, tctl, ...more] of paired) assert.deepEqual([tctl?.split(' ')[0], more], ['tctl', []]);
  });

  it('the picture of the architecture can be drawn, and has a background of its own', async () => {
    const { data, info } = await sharp(path.join(ROOT, 'docs/architecture.svg'))
      .raw()
      .toBuffer({ resolveWithObject: true });
    assert.ok(info.width >= 1000);
    const centre = (Math.floor(info.height / 2) * info.width + Math.floor(info.width / 2)) * info.channels;
    assert.equal(data[centre + 3], 255, 'dark pages would shine through');
  });

  it('CHANGELOG.md begins with what is not released yet', () => {
    assert.match(read('CHANGELOG.md'), /^# Changelog\n[^#]*## \[Unreleased\]\n/);
  });
});
