import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { VERBS, planOf, runVerb } from '../../../scripts/verbs.mjs';

const RUN = path.join(import.meta.dirname, '../../../scripts/run.mjs');

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

  describe('asked for help', function () {
    this.timeout(30_000);

    for (const [name, verb] of Object.entries(VERBS)) {
      it(`print it before any set-up: ${name}`, () => {
        const cache = path.join(root, 'cache');
        mkdirSync(cache);
        const env = { ...process.env, XDG_CACHE_HOME: cache };
        const { status, stdout, stderr } = spawnSync(process.execPath, [RUN, name, '-h'], { encoding: 'utf8', env });
        assert.equal(status, 0, stderr);
        assert.match(
          stdout,
          name === 'brushwork' ? /^Usage: brushwork / : new RegExp(`^usage: npm run ${name}\\b`, 'i'),
        );
        if (verb.helpNeeds === undefined) assert.match(stdout, /takes no options/);
        assert.deepEqual(readdirSync(cache), [], 'something was set up');
        rmSync(cache, { recursive: true });
      });
    }

    it('set up nothing but what prints it', () => {
      for (const [name, verb] of Object.entries(VERBS)) {
        const plan = planOf(name, verb, ['some', '--help']);
        if ('needs' in plan)
          assert.deepEqual([plan.needs.filter((part) => part !== 'node_modules'), plan.extra.at(-1)], [[], '--help']);
        assert.deepEqual(planOf(name, verb, ['some']), { needs: verb.needs, extra: ['some'] });
      }
    });

    it('are listed by the runner', () => {
      for (const [word, code] of [
        ['--help', 0],
        ['nonsense', 2],
      ] as const) {
        const { status, stdout, stderr } = spawnSync(process.execPath, [RUN, word], { encoding: 'utf8' });
        assert.equal(status, code);
        for (const name of Object.keys(VERBS)) assert.ok((code === 0 ? stdout : stderr).includes(`  ${name} `), name);
      }
    });
  });
});
