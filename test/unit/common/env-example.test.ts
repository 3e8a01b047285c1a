import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import path from 'node:path';

const ROOT = path.join(import.meta.dirname, '../../..');

describe('.env.example', () => {
  const text = readFileSync(path.join(ROOT, '.env.example'), 'utf8');
  const documented = new Set([...text.matchAll(/^#?([A-Z][A-Z0-9_]+)=/gm)].map(([, name]) => name));

  it('has every variable of the contract', () => {
    const contract = [
      ...['RABBITMQ_HOST', 'RABBITMQ_PORT', 'RABBITMQ_USER', 'RABBITMQ_PASS', 'RABBITMQ_URL', 'AWS_ACCESS_KEY_ID'],
      ...['AWS_SECRET_ACCESS_KEY', 'AWS_S3_REGION_NAME', 'AWS_ENDPOINT_URL', 'S3_BUCKET', 'BACKEND_API_URL'],
      ...['INTERNAL_API_TOKEN', 'CUDA_VISIBLE_DEVICES', 'LOG_LEVEL'],
    ];
    assert.deepEqual(
      contract.filter((name) => !documented.has(name)),
      [],
    );
    assert.match(text, /AWS_STORAGE_BUCKET_NAME/);
  });

  it('has every variable that the configuration reads', () => {
    const sources = ['config.ts', 'config-sections.ts', 'config-storage.ts'].map((name) =>
      readFileSync(path.join(ROOT, 'common', name), 'utf8'),
    );
    const read = [...sources.join('\n').matchAll(/'([A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+)'/g)].map(([, name]) => name ?? '');
    // Other spellings of variables that it has.
    const synonyms = ['AWS_STORAGE_BUCKET_NAME', 'AWS_ENDPOINT_URL_S3', 'AWS_REGION', 'AWS_DEFAULT_REGION'];
    assert.ok(read.length > 15);
    assert.deepEqual(
      read.filter((name) => !documented.has(name) && !synonyms.includes(name)),
      [],
    );
  });

  it('explains each line', () => {
    const lines = text.split('\n');
    for (const [index, line] of lines.entries()) {
      if (!/^#?[A-Z][A-Z0-9_]+=/.test(line)) continue;
      const above = lines.slice(0, index).reverse();
      const nearest = above.find((other) => other === '' || /^# /.test(other));
      assert.ok(nearest, `no explanation above ${line}`);
    }
  });

  it('holds no secret', () => {
    for (const name of ['AWS_SECRET_ACCESS_KEY', 'INTERNAL_API_TOKEN'])
      assert.match(text, new RegExp(`^${name}=$`, 'm'));
  });
});
