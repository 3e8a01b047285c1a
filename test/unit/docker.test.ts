import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { parse } from 'yaml';
import { LIBTORCH_WHEELS, NODE, TEMPORAL, VERSITYGW } from '../../scripts/setup/pins.mjs';

const ROOT = path.join(import.meta.dirname, '../..');

interface Compose {
  services: Record<string, { image?: string; command?: string[]; build?: { dockerfile: string } }>;
}

const read = (file: string): string => readFileSync(path.join(ROOT, file), 'utf8');

describe('docker/', () => {
  const compose = parse(read('docker/compose.yaml')) as Compose;

  it('runs the same versions as the set-up without Docker', () => {
    assert.equal(compose.services['temporal']?.image, `temporalio/temporal:${TEMPORAL.version}`);
    assert.equal(compose.services['s3']?.image, `versity/versitygw:v${VERSITYGW.version}`);
    const worker = read('docker/worker.Dockerfile');
    for (const name of ['torch', 'nlohmann-json']) {
      const pin = LIBTORCH_WHEELS.find((wheel) => wheel.name === name);
      assert.ok(pin && worker.includes(`${name}==${pin.version}`), name);
    }
    for (const file of ['docker/worker.Dockerfile', 'docker/bridge.Dockerfile']) {
      assert.match(read(file), new RegExp(`^FROM node:${NODE.version}-bookworm-slim$`, 'm'));
    }
  });

  it('names a base model by its commit, the same as in .env.example and docs/training.md', () => {
    const named = /BASE_MODEL: \$\{BASE_MODEL:-([\w-]+\/[\w-]+@[0-9a-f]{40})\}/.exec(read('docker/compose.yaml'))?.[1];
    assert.ok(named !== undefined);
    for (const file of ['.env.example', 'docs/training.md']) assert.ok(read(file).includes(named), file);
  });

  it('registers the search attributes of temporal.yaml', () => {
    const { searchAttributes } = parse(read('temporal.yaml')) as { searchAttributes: Record<string, string> };
    const registered = compose.services['temporal']?.command?.filter((word) => word.startsWith('--search-attribute='));
    assert.deepEqual(
      registered,
      Object.entries(searchAttributes).map(([name, type]) => `--search-attribute=${name}=${type}`),
    );
  });

  it('copies only what exists', () => {
    for (const file of globSync('docker/*.Dockerfile', { cwd: ROOT })) {
      for (const [, sources = ''] of read(file).matchAll(/^COPY (?!--from)(.+) \S+$/gm)) {
        for (const source of sources.split(' ')) {
          assert.ok(globSync(source, { cwd: ROOT }).length > 0, `${file} copies ${source}`);
        }
      }
    }
    for (const service of Object.values(compose.services)) {
      if (service.build) assert.ok(existsSync(path.join(ROOT, service.build.dockerfile)));
    }
  });
});
