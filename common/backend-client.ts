/** Body of `PATCH …/progress`. */
export interface ProgressNotice {
  style_id: number;
  progress: {
    current_epoch: number;
    total_epochs: number;
    /** 0–100, with one decimal. */
    progress_percent: number;
    /** Time left by the speed measured so far; null before any step was. */
    estimated_seconds: number | null;
  };
}

/** Body of `POST …/complete`; `model_path` and `model_url` hold the same URI: backend versions differ in what they read. */
export interface CompleteNotice {
  style_id: number;
  model_path: string;
  model_url: string;
  training_metric: { loss: number; epochs: number };
  metadata: { training_epochs: number; lora_rank: number; lora_alpha: number };
}

/** Body of `POST …/failed`. */
export interface FailedNotice {
  style_id: number;
  error_message: string;
  error_code: string;
}

/**
 * The backend as activities see it. Resolves when the backend took the notice or says that it has it already (409);
 * else rejects with `WebhookUnavailableError` (try again, see `retryAfterMs`), `WebhookUnauthorizedError`,
 * `WebhookRejectedError` or `BlockedTargetError`.
 */
export interface BackendClient {
  progress(origin: string, notice: ProgressNotice, signal?: AbortSignal): Promise<void>;
  /** @param webhookId - the same for every repetition of this notice, sent as header `webhook-id` */
  complete(origin: string, notice: CompleteNotice, webhookId: string, signal?: AbortSignal): Promise<void>;
  /** @param webhookId - the same for every repetition of this notice, sent as header `webhook-id` */
  failed(origin: string, notice: FailedNotice, webhookId: string, signal?: AbortSignal): Promise<void>;
  /** Closes idle connections. */
  close(): Promise<void>;
}
