import assert from 'node:assert/strict';
import { startBackend, type Backend } from '../../../scripts/stack/backend.ts';

const TOKEN = 'a-token-that-is-long-enough-for-the-contract';
const FAILED = { style_id: 7, error_message: 'no such picture', error_code: 'IMAGE_NOT_FOUND' };

const BODIES = {
  progress: {
    style_id: 7,
    progress: { current_epoch: 3, total_epochs: 10, progress_percent: 30, estimated_seconds: 12.5 },
  },
  complete: {
    style_id: 7,
    model_path: 's3://models/models/style_7/lora_weights.safetensors',
    model_url: 's3://models/models/style_7/lora_weights.safetensors',
    training_metric: { loss: 0.25, epochs: 10 },
    metadata: { training_epochs: 10, lora_rank: 16, lora_alpha: 32 },
  },
  failed: FAILED,
};

interface CallOptions {
  method?: string;
  token?: string;
  source?: string;
}

async function call(backend: Backend, path: string, body: unknown, options: CallOptions = {}): Promise<Response> {
  return fetch(`${backend.origin}/api/webhooks/training/${path}`, {
    method: options.method ?? (path === 'progress' ? 'PATCH' : 'POST'),
    headers: {
      authorization: `Bearer ${options.token ?? TOKEN}`,
      'x-request-source': options.source ?? 'training-server',
      'content-type': 'application/json',
    },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
}

describe('the webhook backend', () => {
  let backend: Backend;
  beforeEach(async () => {
    backend = await startBackend({ token: TOKEN, styleIds: [7] });
  });
  afterEach(() => backend.stop());

  for (const [kind, body] of Object.entries(BODIES)) {
    it(`takes a ${kind} notice of the contract and remembers it without the token`, async () => {
      const response = await call(backend, kind, body);
      assert.equal(response.status, 200);
      const request = backend.requests[0];
      assert.deepEqual([request?.kind, request?.accepted, request?.body], [kind, true, body]);
      assert.ok(!JSON.stringify(backend.requests).includes(TOKEN));
    });
  }

  it('takes a progress notice that knows no time left yet', async () => {
    const progress = { ...BODIES.progress.progress, estimated_seconds: null };
    assert.equal((await call(backend, 'progress', { ...BODIES.progress, progress })).status, 200);
  });

  it('answers 401 to a wrong token', async () => {
    assert.equal((await call(backend, 'failed', FAILED, { token: 'wrong' })).status, 401);
    assert.equal(backend.requests[0]?.accepted, false);
  });

  it('answers 403 to a wrong source header', async () => {
    assert.equal((await call(backend, 'failed', FAILED, { source: 'browser' })).status, 403);
  });

  it('answers 400 and names every missing or mistyped field', async () => {
    const response = await call(backend, 'complete', {
      ...BODIES.complete,
      model_url: 3,
      training_metric: { epochs: 1 },
    });
    assert.equal(response.status, 400);
    assert.deepEqual(await response.json(), { detail: ['model_url: not a string', 'training_metric.loss: missing'] });
  });

  it('answers 400 to a body that is not JSON', async () => {
    assert.equal((await call(backend, 'failed', '{"style_id":')).status, 400);
  });

  it('answers 404 to an unknown style and to an unknown path', async () => {
    assert.equal((await call(backend, 'failed', { ...FAILED, style_id: 8 })).status, 404);
    assert.equal((await call(backend, '7/status', FAILED)).status, 404);
  });

  it('answers 405 to a wrong method', async () => {
    assert.equal((await call(backend, 'progress', BODIES.progress, { method: 'POST' })).status, 405);
  });

  it('misbehaves as told, only for the kinds and as often as told', async () => {
    backend.setBehaviour({ kinds: ['failed'], times: 1, status: 503, headers: { 'retry-after': '2' } });
    assert.equal((await call(backend, 'complete', BODIES.complete)).status, 200);
    const refused = await call(backend, 'failed', FAILED);
    assert.deepEqual([refused.status, refused.headers.get('retry-after')], [503, '2']);
    assert.equal((await call(backend, 'failed', FAILED)).status, 200);
    assert.deepEqual(
      backend.requests.map((request) => request.accepted),
      [true, false, true],
    );
  });

  it('cuts the connection before or after it took the notice', async () => {
    backend.setBehaviour({ cut: 'before-accepting' });
    await assert.rejects(call(backend, 'failed', FAILED));
    backend.setBehaviour({ cut: 'after-accepting' });
    await assert.rejects(call(backend, 'failed', FAILED));
    assert.deepEqual(
      backend.requests.map((request) => [request.status, request.accepted]),
      [
        [null, false],
        [null, true],
      ],
    );
  });

  it('waits for a request that comes later, and says what came when it does not', async () => {
    const waiting = backend.waitFor((request) => request.kind === 'failed');
    await call(backend, 'failed', FAILED);
    assert.equal((await waiting).body?.error_code, 'IMAGE_NOT_FOUND');
    await assert.rejects(
      backend.waitFor((request) => request.kind === 'complete', 20),
      /It got: POST \/api\/webhooks\/training\/failed -> 200/,
    );
  });
});
