import assert from 'node:assert/strict';
import path from 'node:path';
import { ESLint } from 'eslint';

const ROOT = path.join(import.meta.dirname, '../..');

/** Lints a text as if it stood in an existing file, since the rules with types need a file of the project. */
async function rulesBroken(file: string, text: string): Promise<(string | null)[]> {
  const eslint = new ESLint({
    cwd: ROOT,
    // Only the rules about boundaries: the ones with types take seconds.
    ruleFilter: ({ ruleId }) => ruleId.includes('no-restricted'),
    overrideConfig: { languageOptions: { parserOptions: { projectService: false, project: null } } },
  });
  const [result] = await eslint.lintText(text, { filePath: path.join(ROOT, file) });
  return (result?.messages ?? []).map((message) => message.ruleId);
}

describe('lint', function () {
  const imports = '@typescript-eslint/no-restricted-imports';

  for (const statement of [
    `import fs from 'fs';`,
    `import { readFile } from 'node:fs/promises';`,
    `import { Worker } from '@temporalio/worker';`,
    `import { createActivities } from '../activities/index.ts';`,
    `import { loadAddon } from '../native/index.ts';`,
    `import { loadConfig } from '../common/config.ts';`,
    `import { start } from '../bridge/main.ts';`,
  ]) {
    it(`refuses in workflow code: ${statement}`, async () => {
      assert.deepEqual(await rulesBroken('workflows/index.ts', statement), [imports]);
    });
  }

  it('allows workflow code its types, its errors and the SDK of workflows', async () => {
    const text = [
      `import { proxyActivities } from '@temporalio/workflow';`,
      `import { ApplicationFailure } from '@temporalio/common';`,
      `import type { Activities } from '../activities/index.ts';`,
      `import { BrushworkError } from '../common/errors.ts';`,
    ].join('\n');
    assert.deepEqual(await rulesBroken('workflows/index.ts', text), []);
  });

  it('refuses the environment and dynamic imports in workflow code', async () => {
    const text = `export const a = process.env['A'];\nexport const b = import('./b.ts');`;
    assert.deepEqual(
      new Set(await rulesBroken('workflows/index.ts', text)),
      new Set(['no-restricted-properties', 'no-restricted-globals', 'no-restricted-syntax']),
    );
  });

  it('refuses Node built-ins in the modules that workflow code shares', async () => {
    assert.deepEqual(await rulesBroken('common/errors.ts', `import os from 'node:os';`), [imports]);
  });

  it('refuses the environment everywhere but in the configuration', async () => {
    const text = `export const token = process.env['INTERNAL_API_TOKEN'];`;
    assert.deepEqual(await rulesBroken('worker/main.ts', text), ['no-restricted-properties']);
    assert.deepEqual(await rulesBroken('common/config.ts', text), []);
  });
});
