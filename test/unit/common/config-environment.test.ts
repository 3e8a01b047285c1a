import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { environmentWithoutSecrets, loadConfig } from '../../../common/config.ts';
import { ENVIRONMENT, TOKEN, faultsOf } from './support/config.ts';

describe('environment of a configuration', () => {
  let directory: string;

  before(() => {
    directory = mkdtempSync(path.join(os.tmpdir(), 'brushwork-config-'));
  });
  after(() => rmSync(directory, { recursive: true }));

  it('reads the standard TEMPORAL_ variables over the file', () => {
    const env = {
      ...ENVIRONMENT,
      TEMPORAL_ADDRESS: 'ns.tmprl.cloud:7233',
      TEMPORAL_NAMESPACE: 'ns',
      TEMPORAL_API_KEY: 'k',
    };
    const { temporal } = loadConfig({ env });
    assert.deepEqual([temporal.address, temporal.namespace], ['ns.tmprl.cloud:7233', 'ns']);
    assert.equal(temporal.connection.apiKey, 'k');
    assert.equal(temporal.connection.tls, true);
  });

  it('names a client certificate that can not be read', () => {
    const env = { ...ENVIRONMENT, TEMPORAL_TLS_CLIENT_CERT_PATH: '/nowhere.pem', TEMPORAL_TLS_CLIENT_KEY_PATH: '/x' };
    assert.match(faultsOf({ env }).join(), /TEMPORAL_.*nowhere\.pem/);
  });

  it('names the variable whose file does not exist', () => {
    const certificate = { ...ENVIRONMENT, TEMPORAL_TLS_CLIENT_CERT_PATH: '/nope', TEMPORAL_TLS_CLIENT_KEY_PATH: '/x' };
    assert.deepEqual(faultsOf({ env: certificate }), [
      'TEMPORAL_TLS_CLIENT_CERT_PATH names /nope, which does not exist.',
    ]);
    const authority = { ...ENVIRONMENT, TEMPORAL_TLS_SERVER_CA_CERT_PATH: '/nope' };
    assert.deepEqual(faultsOf({ env: authority }), [
      'TEMPORAL_TLS_SERVER_CA_CERT_PATH names /nope, which does not exist.',
    ]);
    const profiles = { ...ENVIRONMENT, TEMPORAL_CONFIG_FILE: '/nope' };
    assert.deepEqual(faultsOf({ env: profiles }), ['TEMPORAL_CONFIG_FILE names /nope, which does not exist.']);
    const own = { ...ENVIRONMENT, BRUSHWORK_CONFIG: '/nope' };
    assert.deepEqual(faultsOf({ env: own }), ['BRUSHWORK_CONFIG names /nope, which does not exist.']);
  });

  it('encodes user and password of RabbitMQ', () => {
    const env = { ...ENVIRONMENT, RABBITMQ_USER: 'a@b', RABBITMQ_PASS: 'p/w:d#%', RABBITMQ_PORT: '5673' };
    assert.equal(loadConfig({ env }).rabbitmq?.url, 'amqp://a%40b:p%2Fw%3Ad%23%25@mq.example.com:5673');
  });

  it('names a RABBITMQ_URL whose password has a bare %', () => {
    const env = { ...ENVIRONMENT, RABBITMQ_URL: 'amqp://u:50%off@mq' };
    assert.throws(() => loadConfig({ env }), /RABBITMQ_URL must look like .*%25/);
  });

  it('takes RABBITMQ_URL over the single values', () => {
    const env = { ...ENVIRONMENT, RABBITMQ_URL: 'amqps://u:p@mq:5671/vh' };
    assert.equal(loadConfig({ env }).rabbitmq?.url, 'amqps://u:p@mq:5671/vh');
  });

  it('takes AWS_STORAGE_BUCKET_NAME where S3_BUCKET is empty', () => {
    const env = { ...ENVIRONMENT, S3_BUCKET: '', AWS_STORAGE_BUCKET_NAME: 'other' };
    assert.equal(loadConfig({ env }).storage?.bucket, 'other');
  });

  it('wins over the file wherever both can say something', () => {
    const env = {
      ...ENVIRONMENT,
      RABBITMQ_QUEUE: 'other',
      FILE_URI_ROOT: '/srv',
      BRUSHWORK_DEVICE: 'cuda',
      BRUSHWORK_CPU_THREADS: '3',
      BRUSHWORK_WORK_DIRECTORY: '/scratch',
      CUDA_VISIBLE_DEVICES: '1',
      HF_ENDPOINT: 'https://hub.example.com/mirror',
      HF_TOKEN: 'hub-token',
      XDG_CACHE_HOME: '/cache',
      LOG_LEVEL: 'DEBUG',
    };
    const { rabbitmq, storage, workDirectory, trainer, logLevel } = loadConfig({ env });
    assert.deepEqual(
      [rabbitmq?.queue, rabbitmq?.deadQueue, storage?.fileUriRoot, trainer.device, trainer.cpuThreads, logLevel],
      ['other', 'other.dead', '/srv', 'cuda', 3, 'debug'],
    );
    assert.deepEqual([workDirectory, trainer.cudaVisibleDevices], ['/scratch', '1']);
    assert.deepEqual(trainer.hub, { endpoint: 'https://hub.example.com/mirror', token: 'hub-token' });
    assert.equal(trainer.cacheDirectory, '/cache/brushwork');
  });

  it('takes the origin of BACKEND_API_URL, and refuses one with a password', () => {
    const faults = faultsOf({ env: { ...ENVIRONMENT, BACKEND_API_URL: 'https://u:pw12345678@api.example.com' } });
    assert.equal(faults.length, 1);
    assert.ok(!(faults[0] ?? '').includes('pw12345678'));
  });

  it('takes nothing from .env where BRUSHWORK_ENV_FILE names another file: a test stack must not reach real systems', () => {
    const home = process.cwd();
    writeFileSync(path.join(directory, '.env'), 'RABBITMQ_URL=amqp://production');
    writeFileSync(path.join(directory, 'other'), 'LOG_LEVEL=debug');
    process.chdir(directory);
    try {
      process.env['BRUSHWORK_ENV_FILE'] = 'other';
      assert.equal(loadConfig({ roles: [] }).logLevel, 'debug');
      process.env['BRUSHWORK_ENV_FILE'] = '/dev/null';
      assert.equal(loadConfig({ roles: [] }).logLevel, 'info');
      process.env['BRUSHWORK_ENV_FILE'] = '/nope';
      assert.throws(() => loadConfig({ roles: [] }), /\/nope can't be read/);
    } finally {
      process.chdir(home);
      delete process.env['BRUSHWORK_ENV_FILE'];
    }
  });

  it('takes what the environment lacks from .env in the current directory', () => {
    const home = process.cwd();
    writeFileSync(
      path.join(directory, '.env'),
      `${Object.entries(ENVIRONMENT)
        .map(([name, value]) => `${name}="${value}" # a comment`)
        .join('\n')}\nLOG_LEVEL=debug\nBRUSHWORK_TEST=1`,
    );
    const { LOG_LEVEL: level } = process.env;
    process.env['LOG_LEVEL'] = 'warn';
    process.chdir(directory);
    try {
      const config = loadConfig();
      assert.deepEqual([config.backend.token, config.logLevel], [TOKEN, 'warn']);
      assert.equal(process.env['BRUSHWORK_TEST'], undefined, 'the environment of this process stays as it is');
    } finally {
      process.chdir(home);
      if (level === undefined) delete process.env['LOG_LEVEL'];
      else process.env['LOG_LEVEL'] = level;
    }
  });
});

describe('environmentWithoutSecrets', () => {
  it('leaves secrets out of the environment for a child', () => {
    process.env['BRUSHWORK_TEST_TOKEN'] = 'secret';
    try {
      const env = environmentWithoutSecrets();
      assert.ok(!('BRUSHWORK_TEST_TOKEN' in env));
      assert.equal(env['PATH'], process.env['PATH']);
    } finally {
      delete process.env['BRUSHWORK_TEST_TOKEN'];
    }
  });
});
