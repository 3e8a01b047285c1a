import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createBackendClient } from '../../../activities/backend-webhook.ts';
import type { BackendClient } from '../../../common/backend-client.ts';
import { ConfigError } from '../../../common/config.ts';
import { WebhookUnavailableError } from '../../../common/errors.ts';

const TOKEN = 'a-token-of-at-least-thirty-two-characters';
const PROGRESS = {
  style_id: 42,
  progress: { current_epoch: 3, total_epochs: 10, progress_percent: 30, estimated_seconds: 12 },
};
const COMPLETE = {
  style_id: 42,
  model_path: 's3://b/models/style_42/lora_weights.safetensors',
  model_url: 's3://b/models/style_42/lora_weights.safetensors',
  training_metric: { loss: 0.05, epochs: 10 },
  metadata: { training_epochs: 10, lora_rank: 16, lora_alpha: 32 },
};
const FAILED = { style_id: 42, error_message: 'why', error_code: 'IMAGE_INVALID' };

interface Seen {
  method: string | undefined;
  url: string | undefined;
  headers: IncomingMessage['headers'];
  body: string;
}

describe('backend client', () => {
  let server: Server;
  let origin: string;
  let client: BackendClient;
  let seen: Seen[];
  let answer: (response: ServerResponse) => void;

  beforeEach(async () => {
    seen = [];
    answer = (response) => void response.writeHead(200).end('{"success": true}');
    server = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => {
        const { method, url, headers } = request;
        seen.push({ method, url, headers, body: Buffer.concat(chunks).toString() });
        answer(response);
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    client = createBackendClient({
      allowedOrigins: [origin],
      token: TOKEN,
      timeoutMs: 500,
      progressIntervalMs: 30_000,
    });
  });

  afterEach(async () => {
    await client.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });

  const failed = () => client.failed(origin, FAILED, 'id-1');

  it('sends progress, complete and failed exactly as the contract says', async () => {
    await client.progress(origin, PROGRESS);
    await client.complete(origin, COMPLETE, 'id-1');
    await client.failed(origin, FAILED, 'id-2');
    assert.deepEqual(
      seen.map(({ method, url, body }) => [method, url, JSON.parse(body) as unknown]),
      [
        ['PATCH', '/api/webhooks/training/progress', PROGRESS],
        ['POST', '/api/webhooks/training/complete', COMPLETE],
        ['POST', '/api/webhooks/training/failed', FAILED],
      ],
    );
    for (const { headers } of seen) {
      assert.equal(headers.authorization, `Bearer ${TOKEN}`);
      assert.equal(headers['x-request-source'], 'training-server');
      assert.equal(headers['content-type'], 'application/json');
    }
    assert.deepEqual(
      seen.map(({ headers }) => headers['webhook-id']),
      [undefined, 'id-1', 'id-2'],
    );
  });

  it('uses only the origin of what it is given', async () => {
    await client.failed(`${origin}/api/webhooks/training/42/status?x=1`, FAILED, 'id');
    assert.equal(seen[0]?.url, '/api/webhooks/training/failed');
  });

  const outcomes: [number, string | null][] = [
    [200, null],
    [201, null],
    [204, null],
    [409, null],
    [400, 'WEBHOOK_REJECTED'],
    [404, 'WEBHOOK_REJECTED'],
    [410, 'WEBHOOK_REJECTED'],
    [413, 'WEBHOOK_REJECTED'],
    [422, 'WEBHOOK_REJECTED'],
    [301, 'WEBHOOK_REJECTED'],
    [307, 'WEBHOOK_REJECTED'],
    [401, 'WEBHOOK_UNAUTHORIZED'],
    [403, 'WEBHOOK_UNAUTHORIZED'],
    [408, 'WEBHOOK_UNAVAILABLE'],
    [425, 'WEBHOOK_UNAVAILABLE'],
    [429, 'WEBHOOK_UNAVAILABLE'],
    [500, 'WEBHOOK_UNAVAILABLE'],
    [502, 'WEBHOOK_UNAVAILABLE'],
    [503, 'WEBHOOK_UNAVAILABLE'],
    [504, 'WEBHOOK_UNAVAILABLE'],
  ];
  for (const [status, code] of outcomes) {
    it(`${status} is ${code ?? 'success'}, with one call`, async () => {
      answer = (response) => void response.writeHead(status, { location: `${origin}/elsewhere` }).end();
      if (code === null) await failed();
      else await assert.rejects(failed(), { code });
      assert.equal(seen.length, 1);
    });
  }

  const waits: [string, string, number | null][] = [
    ['seconds', '120', 120_000],
    ['more than an hour, capped', '86400', 3_600_000],
    ['nonsense', 'soon', null],
    ['a date in the past', 'Thu, 01 Jan 1970 00:00:00 GMT', 0],
    ['a date far ahead, capped', 'Fri, 01 Jan 2100 00:00:00 GMT', 3_600_000],
  ];
  for (const [what, header, expected] of waits) {
    it(`reads Retry-After as ${what}`, async () => {
      answer = (response) => void response.writeHead(503, { 'retry-after': header }).end();
      await assert.rejects(failed(), (error) => {
        return error instanceof WebhookUnavailableError && error.retryAfterMs === expected;
      });
    });
  }

  it('reads Retry-After as a date nearby', async () => {
    answer = (response) => {
      response.writeHead(429, { 'retry-after': new Date(Date.now() + 60_000).toUTCString() }).end();
    };
    await assert.rejects(failed(), (error) => {
      const wait = error instanceof WebhookUnavailableError ? error.retryAfterMs : null;
      return wait !== null && wait > 55_000 && wait <= 60_000;
    });
  });

  it('passes on what the backend said, cut short', async () => {
    answer = (response) => void response.writeHead(400).end(`style_id missing ${'x'.repeat(5000)}`);
    await assert.rejects(
      failed(),
      (error: Error) => /style_id missing/.test(error.message) && error.message.length < 700,
    );
  });

  it('does not pass on its own token when the backend echoes it', async () => {
    answer = (response) => void response.writeHead(500).end(`headers: Bearer ${TOKEN}`);
    await assert.rejects(failed(), (error: Error) => !error.message.includes(TOKEN) && /\[token\]/.test(error.message));
  });

  it('goes by the status however large the answer is', async () => {
    const endless = 'x'.repeat(1024 * 1024);
    answer = (response) => void response.writeHead(200).end(endless);
    await failed();
    answer = (response) => void response.writeHead(400).end(endless);
    await assert.rejects(failed(), { code: 'WEBHOOK_REJECTED' });
  });

  it('takes a success whose body breaks off as a success', async () => {
    answer = (response) => {
      response.writeHead(200, { 'content-length': '100' }).write('{');
      setTimeout(() => response.destroy(), 20);
    };
    await failed();
  });

  it('gives up on a backend that does not answer in time', async () => {
    answer = () => undefined;
    const startedAtMs = Date.now();
    await assert.rejects(failed(), { code: 'WEBHOOK_UNAVAILABLE', message: /no answer within 500 ms/ });
    assert.ok(Date.now() - startedAtMs < 1500);
  });

  it('counts a cut connection as no answer', async () => {
    answer = (response) => void response.destroy();
    await assert.rejects(failed(), { code: 'WEBHOOK_UNAVAILABLE' });
  });

  it('counts a backend that is not there as no answer', async () => {
    await new Promise((resolve) => server.close(resolve));
    await assert.rejects(failed(), { code: 'WEBHOOK_UNAVAILABLE', message: /ECONNREFUSED/ });
  });

  it('ends with the reason of the signal', async () => {
    answer = () => undefined;
    const abort = new AbortController();
    setTimeout(() => abort.abort(new Error('enough')), 50);
    await assert.rejects(client.failed(origin, FAILED, 'id', abort.signal), /enough/);
  });

  const blocked = (): [string, string][] => [
    ['another host', 'https://evil.example.com'],
    ['another port', 'http://127.0.0.1:1'],
    ['another scheme', origin.replace('http:', 'https:')],
    ['a user name that looks like the host', origin.replace('http://', 'http://127.0.0.1@')],
    ['a file', 'file:///etc/passwd'],
    ['no URL', 'backend'],
  ];
  it('calls no one but the allowed origins', async () => {
    for (const [what, target] of blocked()) {
      await assert.rejects(client.failed(target, FAILED, 'id'), { code: 'BLOCKED_TARGET' }, what);
    }
    assert.equal(seen.length, 0);
  });

  for (const token of [null, '', 'x'.repeat(31)]) {
    it(`refuses to start with ${token === null ? 'no token' : `a token of ${token.length} characters`}`, () => {
      const config = { allowedOrigins: [origin], token, timeoutMs: 500, progressIntervalMs: 30_000 };
      assert.throws(() => createBackendClient(config), ConfigError);
    });
  }
});
