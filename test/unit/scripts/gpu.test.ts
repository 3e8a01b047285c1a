import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const SCRIPT = path.join(import.meta.dirname, '../../../scripts/testing/gpu.ts');

describe('npm run test:gpu', () => {
  let folder: string;

  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'brushwork-gpu-'));
  });

  after(() => rmSync(folder, { recursive: true }));

  /** Runs it with nothing else on the PATH than this folder. */
  function run(env: NodeJS.ProcessEnv = {}): { status: number | null; stderr: string } {
    const home = { HOME: process.env['HOME'] };
    return spawnSync(process.execPath, [SCRIPT], { env: { ...home, PATH: folder, ...env }, encoding: 'utf8' });
  }

  function writeNvidiaSmi(script: string): void {
    const file = path.join(folder, 'nvidia-smi');
    writeFileSync(file, `#!/bin/sh\n${script}\n`);
    chmodSync(file, 0o755);
  }

  it('says what is missing and fails', () => {
    const none = run();
    assert.equal(none.status, 1);
    assert.match(none.stderr, /^No GPU: there is no nvidia-smi on the PATH\. Nothing was tested\./);
    writeNvidiaSmi('echo "No devices were found"; exit 6');
    const broken = run();
    assert.equal(broken.status, 1);
    assert.match(broken.stderr, /No GPU: .*\nNo devices were found\nNothing was tested/);
    writeNvidiaSmi('echo "GPU 0: a GPU"');
    const cpuTorch = run({ LIBTORCH: folder });
    assert.equal(cpuTorch.status, 1);
    assert.match(cpuTorch.stderr, /^No CUDA build of torch: .*Nothing was tested/);
  });
});
