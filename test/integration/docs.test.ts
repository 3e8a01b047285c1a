import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';

const ROOT = path.join(import.meta.dirname, '../..');
const CLI = path.join(ROOT, 'cli/main.ts');
const MARK = '<!-- run by test/integration/docs.test.ts -->';
const DOCUMENTS = [
  ...['README.md', 'docs/architecture.md', 'docs/errors.md', 'docs/operations.md', 'docs/training.md'],
  'docs/drawing.md',
];

const execute = promisify(execFile);
const read = (file: string): string => readFileSync(path.join(ROOT, file), 'utf8');

/** Commands of the blocks that are marked to be run. */
function markedBlocks(document: string): string[] {
  return read(document)
    .split(MARK)
    .slice(1)
    .map((rest) => /^\s*```sh\n(.*?)^```/ms.exec(rest)?.[1] ?? assert.fail(`${document}: no block follows the mark`));
}

describe('commands in the docs', function () {
  this.timeout(180_000);
  let directory: string;

  before(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'brushwork-docs-'));
  });
  after(() => {
    for (const each of [directory, `${directory}-cache`]) rmSync(each, { recursive: true, force: true });
  });

  it('of README.md train a style as they say', async () => {
    const blocks = DOCUMENTS.flatMap((document) => markedBlocks(document));
    assert.ok(blocks.length > 0);
    for (const block of blocks) {
      // The command that the npm script runs, with the Node that runs this test, and in a folder of its own.
      const script = block
        .replaceAll('npm run brushwork --', '"$NODE" "$CLI"')
        .replaceAll(' test/fixtures/', ' "$ROOT"/test/fixtures/');
      assert.notEqual(script, block);
      const env = { ...process.env, NODE: process.execPath, CLI, ROOT, XDG_CACHE_HOME: `${directory}-cache` };
      await execute('bash', ['-euc', script], { cwd: directory, env });
    }
    copyFileSync(path.join(ROOT, '.gitignore'), path.join(directory, '.gitignore'));
    await execute('git', ['init', '--quiet'], { cwd: directory });
    const { stdout: untracked } = await execute('git', ['status', '--short'], { cwd: directory });
    assert.equal(untracked, '?? .gitignore\n', 'git would take what the example makes');
    const made = readdirSync(path.join(directory, 'style')).sort();
    assert.deepEqual(made, ['kohya.safetensors', 'lora_weights.safetensors', 'loss.png', 'peft', 'steps.jsonl']);
    for (const name of made) assert.ok(read('README.md').includes(`\`${name}${name === 'peft' ? '/' : ''}\``), name);
    assert.equal(readFileSync(path.join(directory, 'style/steps.jsonl'), 'utf8').trimEnd().split('\n').length, 3 * 12);
  });
});
