import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { GetObjectCommand, PutObjectCommand } from '@aws-sdk/client-s3';
import { Connection } from '@temporalio/client';
import { connect } from 'amqplib';
import { s3Client } from '../../scripts/stack/s3-server.ts';
import { startStack } from '../../scripts/stack/stack.ts';
import { searchAttributes } from '../../scripts/stack/temporal-server.ts';

const STACK_MODULE = path.join(import.meta.dirname, '../../scripts/stack/stack.ts');

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection({ port, host: '127.0.0.1' });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

describe('the local stack', () => {
  let directory = '';

  beforeEach(() => {
    directory = mkdtempSync(path.join(tmpdir(), 'brushwork-stack-'));
  });

  afterEach(() => {
    rmSync(directory, { recursive: true, force: true });
  });

  it('is real: search attributes, durable messages and objects outlive the death of their servers', async () => {
    const stack = await startStack({ directory, buckets: ['models', 'images'] });
    const store = s3Client(stack.s3);
    try {
      await store.send(new PutObjectCommand({ Bucket: 'images', Key: 'a.txt', Body: 'kept', IfNoneMatch: '*' }));
      await assert.rejects(
        store.send(new PutObjectCommand({ Bucket: 'images', Key: 'a.txt', Body: 'new', IfNoneMatch: '*' })),
        { name: 'PreconditionFailed' },
      );
      const broker = await connect(stack.amqpUrl);
      const channel = await broker.createConfirmChannel();
      await channel.assertQueue('model_training', { durable: true });
      channel.sendToQueue('model_training', Buffer.from('{}'), { persistent: true });
      await channel.waitForConfirms();
      await broker.close();

      await Promise.all(
        Object.values(stack.parts).map(async (part) => {
          await part.kill();
          await part.start();
        }),
      );

      const object = await store.send(new GetObjectCommand({ Bucket: 'images', Key: 'a.txt' }));
      assert.equal(await object.Body?.transformToString(), 'kept');
      const again = await connect(stack.amqpUrl);
      const message = await (await again.createChannel()).get('model_training', { noAck: true });
      assert.ok(message);
      await again.close();
      const connection = await Connection.connect({ address: stack.temporalAddress });
      const { customAttributes } = await connection.operatorService.listSearchAttributes({ namespace: 'default' });
      for (const name of Object.keys(searchAttributes())) assert.ok(customAttributes?.[name] !== undefined, name);
      await connection.close();
      assert.equal((await fetch(stack.webUiUrl)).status, 200);
    } finally {
      store.destroy();
      await stack.stop();
    }
  });

  it('ends with its parent, even when that is killed', async () => {
    const program = `
      const { startStack } = await import(${JSON.stringify(STACK_MODULE)});
      const stack = await startStack({ directory: ${JSON.stringify(directory)} });
      console.log([stack.temporalAddress, stack.amqpUrl, stack.s3.endpoint].map((url) => url.split(':').at(-1)).join(' '));
      setInterval(() => {}, 1000);
    `;
    const parent = spawn(process.execPath, ['--input-type=module', '--eval', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line] = (await once(parent.stdout, 'data')) as [Buffer];
    const ports = line.toString().trim().split(' ').map(Number);
    assert.equal(ports.length, 3);
    for (const port of ports) assert.ok(await isListening(port));

    parent.kill('SIGKILL');
    await once(parent, 'exit');
    for (let tries = 0; tries < 50; tries += 1) {
      if (!(await Promise.all(ports.map(isListening))).includes(true)) return;
      await sleep(100);
    }
    assert.fail('a part still listens 5 s after its parent was killed');
  });
});
