import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import path from 'node:path';
import { loadConfig } from '../../../common/config.ts';
import { configSecrets, createLogger, jobLogger } from '../../../common/logger.ts';

describe('createLogger', () => {
  let lines: string[];
  const destination = { write: (line: string) => void lines.push(line) };
  beforeEach(() => {
    lines = [];
  });
  const last = () => JSON.parse(lines.at(-1) ?? '') as Record<string, unknown>;

  it('writes a JSON object per line with level, time and its fields', () => {
    createLogger({ level: 'info', fields: { role: 'pod' }, destination }).info({ epoch: 3 }, 'trained');
    const { time, ...rest } = last();
    assert.deepEqual(rest, { level: 'info', role: 'pod', epoch: 3, msg: 'trained' });
    assert.ok(!Number.isNaN(Date.parse(String(time))));
    assert.ok(lines[0]?.endsWith('}\n'));
  });

  it('is silent below its level', () => {
    createLogger({ level: 'warn', destination }).info('nothing');
    assert.deepEqual(lines, []);
  });

  it('puts style, task and pod into every line of a job', () => {
    const logger = jobLogger(createLogger({ level: 'info', destination }), { styleId: 42, taskId: 't', pod: 'gpu-7' });
    logger.info('one');
    assert.deepEqual([last()['style'], last()['task'], last()['pod']], [42, 't', 'gpu-7']);
  });

  it('blacks out secrets wherever they are, and stays JSON', () => {
    const secret = 'pa"ss\\word-long';
    const logger = createLogger({ level: 'info', secrets: [secret], destination });
    logger.info({ nested: { deep: [`x ${secret} y`] }, err: new Error(`refused ${secret}`) }, `with ${secret}`);
    const text = JSON.stringify(last());
    assert.ok(!text.includes('word-long'), text);
    assert.equal(last()['msg'], 'with [secret]');
  });

  it('blacks out signatures, bearer tokens and passwords that it was not told of', () => {
    const logger = createLogger({ level: 'info', destination });
    logger.info({ url: 'https://h/a.jpg?X-Amz-Credential=AK&X-Amz-Signature=5ecret' }, 'Bearer abc.def-5ecret');
    logger.info('amqp://user:5ecret@host:5672/');
    assert.ok(!lines.join('').includes('5ecret'), lines.join(''));
    assert.match(lines.join(''), /https:\/\/h\/a\.jpg/);
  });
});

describe('createLogger on standard output', () => {
  const MODULE = JSON.stringify(path.join(import.meta.dirname, '../../../common/logger.ts'));

  it('goes on without lines that can not be written: on a full disk the call that logged ended the process', function () {
    if (!existsSync('/dev/full')) this.skip();
    const program = `
      const { createLogger } = await import(${MODULE});
      const logger = createLogger({ level: 'info' });
      logger.info('one');
      setTimeout(() => logger.info('two'), 1);
      setTimeout(() => process.stderr.write('alive'), 10);`;
    const full = openSync('/dev/full', 'w');
    try {
      const args = ['--input-type=module', '--eval', program];
      const { status, stderr } = spawnSync(process.execPath, args, {
        stdio: ['ignore', full, 'pipe'],
        encoding: 'utf8',
      });
      assert.deepEqual([status, stderr], [0, 'alive']);
    } finally {
      closeSync(full);
    }
  });
});

describe('configSecrets', () => {
  it('knows every secret of a configuration', () => {
    const config = loadConfig({
      env: {
        RABBITMQ_HOST: 'mq',
        RABBITMQ_PASS: 'rabbit/secret',
        AWS_ACCESS_KEY_ID: 'key',
        AWS_SECRET_ACCESS_KEY: 'aws-secret',
        AWS_SESSION_TOKEN: 'session-secret',
        S3_BUCKET: 'b',
        BACKEND_API_URL: 'https://api.example.com',
        INTERNAL_API_TOKEN: 'token-secret-of-thirty-two-characters',
        TEMPORAL_API_KEY: 'temporal-secret',
        BASE_MODEL: '/m',
        HF_TOKEN: 'hub-secret',
      },
    });
    assert.deepEqual(configSecrets(config).sort(), [
      'aws-secret',
      'hub-secret',
      'rabbit%2Fsecret',
      'rabbit/secret',
      'session-secret',
      'temporal-secret',
      'token-secret-of-thirty-two-characters',
    ]);
  });

  it('leaves short words alone: blacking them out would garble every line', () => {
    const env = { RABBITMQ_HOST: 'mq', RABBITMQ_PASS: 'guest', BACKEND_API_URL: 'https://api.example.com' };
    assert.deepEqual(configSecrets(loadConfig({ env, roles: ['bridge'] })), []);
  });
});
