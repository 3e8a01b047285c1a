import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { loadConfig } from '../../common/config.ts';
import { loadAddon } from '../../native/index.ts';
import { writeRandomBaseModel } from '../../native/trainer/random-base-model.ts';
import { startStack } from '../../scripts/stack/stack.ts';
import type { Stack } from '../../scripts/stack/stack.ts';
import { createObjectStore } from '../../worker/object-store.ts';
import { writePictures } from './support/pictures.ts';

const CLI = path.join(import.meta.dirname, '../../cli/main.ts');
const MODEL = 's3://models/tiny';

const execute = promisify(execFile);

describe('commands with a base model in a bucket', function () {
  this.timeout(120_000);
  let directory: string;
  let stack: Stack;
  let env: NodeJS.ProcessEnv;
  const at = (...names: string[]) => path.join(directory, ...names);

  before(async () => {
    directory = mkdtempSync(path.join(tmpdir(), 'brushwork-bucket-model-'));
    stack = await startStack({ directory: at('stack'), parts: ['s3'], buckets: ['models'] });
    env = { ...process.env, ...stack.environment(), XDG_CACHE_HOME: at('cache') };
    await writeRandomBaseModel(loadAddon(), at('model'), 'tiny', 1);
    const { baseModel } = loadConfig({ env, roles: [], model: MODEL });
    const store = createObjectStore(baseModel?.store ?? assert.fail('no store'));
    for (const name of readdirSync(at('model'), { recursive: true }).map(String)) {
      if (!statSync(at('model', name)).isFile()) continue;
      await store.uploadFile(at('model', name), { bucket: 'models', key: `tiny/${name}` });
    }
    store.close();
  });
  after(async () => {
    await stack.stop();
    rmSync(directory, { recursive: true });
  });

  it('draw with it', async () => {
    const options = ['--prompt', 'sunset', '--size', '64', '--steps', '1', '--threads', '1'];
    await execute(process.execPath, [CLI, 'sample', '--model', MODEL, ...options], { cwd: directory, env });
    assert.ok(existsSync(at('drawn/1-seed-0.png')));
  });

  it('train it where BASE_MODEL names it', async () => {
    await writePictures(at('pictures'));
    writeFileSync(at('config.json'), JSON.stringify({ rank: 2, resolution: 64, epochs: 1 }));
    const options = ['--images', 'pictures', '--output', 'style', '--config', 'config.json', '--threads', '1'];
    await execute(process.execPath, [CLI, 'train', ...options], { cwd: directory, env: { ...env, BASE_MODEL: MODEL } });
    assert.ok(existsSync(at('style/lora_weights.safetensors')));
  });
});
