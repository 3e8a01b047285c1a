import assert from 'node:assert/strict';
import { createBackendClient } from '../../activities/backend-webhook.ts';
import type { BackendClient } from '../../common/backend-client.ts';
import { startBackend } from '../../scripts/stack/backend.ts';
import type { Backend } from '../../scripts/stack/backend.ts';

const TOKEN = 'a-token-of-at-least-thirty-two-characters';
const URI = 's3://brushwork/models/style_42/lora_weights.safetensors';

describe('webhooks to a backend that checks the contract', () => {
  let backend: Backend;
  let client: BackendClient;
  const clientWith = (token: string) =>
    createBackendClient({ allowedOrigins: [backend.origin], token, timeoutMs: 1000, progressIntervalMs: 30_000 });

  beforeEach(async () => {
    backend = await startBackend({ token: TOKEN, styleIds: [42] });
    client = clientWith(TOKEN);
  });

  afterEach(async () => {
    await client.close();
    await backend.stop();
  });

  const failed = (styleId = 42) => {
    return client.failed(backend.origin, { style_id: styleId, error_message: 'why', error_code: 'INTERNAL' }, 'id');
  };

  it('are taken, all three of them', async () => {
    const progress = { current_epoch: 1, total_epochs: 10, progress_percent: 10, estimated_seconds: 90 };
    await client.progress(backend.origin, { style_id: 42, progress });
    await client.complete(
      backend.origin,
      {
        style_id: 42,
        model_path: URI,
        model_url: URI,
        training_metric: { loss: 0.1, epochs: 10 },
        metadata: { training_epochs: 10, lora_rank: 16, lora_alpha: 32 },
      },
      'id',
    );
    await failed();
    assert.deepEqual(
      backend.requests.map(({ kind, accepted }) => [kind, accepted]),
      [
        ['progress', true],
        ['complete', true],
        ['failed', true],
      ],
    );
  });

  it('with a wrong token are WEBHOOK_UNAUTHORIZED', async () => {
    const stranger = clientWith('another-token-of-thirty-two-characters');
    const notice = { style_id: 42, error_message: 'why', error_code: 'INTERNAL' };
    await assert.rejects(stranger.failed(backend.origin, notice, 'id'), {
      code: 'WEBHOOK_UNAUTHORIZED',
      message: /INTERNAL_API_TOKEN/,
    });
    await stranger.close();
  });

  it('for an unknown style are WEBHOOK_REJECTED', async () => {
    await assert.rejects(failed(43), { code: 'WEBHOOK_REJECTED', message: /unknown style/ });
  });

  it('go through once the backend is well again', async () => {
    backend.setBehaviour({ status: 503, headers: { 'retry-after': '7' }, times: 1 });
    await assert.rejects(failed(), { code: 'WEBHOOK_UNAVAILABLE', retryAfterMs: 7000 });
    await failed();
  });

  it('that are slow or cut are WEBHOOK_UNAVAILABLE', async () => {
    backend.setBehaviour({ delayMs: 3000, times: 1 });
    await assert.rejects(failed(), { code: 'WEBHOOK_UNAVAILABLE', message: /within 1000 ms/ });
    for (const cut of ['before-accepting', 'after-accepting'] as const) {
      backend.setBehaviour({ cut, times: 1 });
      await assert.rejects(failed(), { code: 'WEBHOOK_UNAVAILABLE' });
    }
  });
});
