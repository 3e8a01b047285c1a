import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { runVerb } from '../../../scripts/verbs.mjs';

describe('npm scripts', () => {
  let root: string;
  let elsewhere: string;

  /** The folder in which a verb's command runs. */
  async function folderOf(inCallersFolder: boolean, env: NodeJS.ProcessEnv): Promise<string> {
    const seen = path.join(root, 'seen');
    const commands = [[process.execPath, path.join(root, 'where.mjs')]];
    const code = await runVerb(root, { needs: [], commands, inCallersFolder, summary: '' }, [seen], env);
    assert.equal(code, 0);
    return readFileSync(seen, 'utf8');
  }

  before(() => {
    root = realpathSync(mkdtempSync(path.join(tmpdir(), 'brushwork-verbs-')));
    elsewhere = path.join(root, 'elsewhere');
    mkdirSync(elsewhere);
    const script = `import { writeFileSync } from 'node:fs'; writeFileSync(process.argv[2], process.cwd());`;
    writeFileSync(path.join(root, 'where.mjs'), script);
  });

  after(() => rmSync(root, { recursive: true }));

  it('run in the repository, or where npm was called', async () => {
    const env = { ...process.env, INIT_CWD: elsewhere };
    assert.equal(await folderOf(false, env), root);
    assert.equal(await folderOf(true, env), elsewhere);
  });

  it('run where they were started without npm', async () => {
    const env = { ...process.env };
    delete env['INIT_CWD'];
    assert.equal(await folderOf(true, env), process.cwd());
  });
});
