import assert from 'node:assert/strict';
import { ConfigError, loadConfig } from '../../../../common/config.ts';
import type { LoadConfigOptions } from '../../../../common/config.ts';

/** Of the length that the contract demands. */
export const TOKEN = 'a-token-of-at-least-thirty-two-characters';

/** All that has no default. */
export const ENVIRONMENT = {
  RABBITMQ_HOST: 'mq.example.com',
  AWS_ACCESS_KEY_ID: 'key',
  AWS_SECRET_ACCESS_KEY: 'secret',
  S3_BUCKET: 'weights',
  BACKEND_API_URL: 'https://api.example.com/v1',
  INTERNAL_API_TOKEN: TOKEN,
  BASE_MODEL: '/models/sd15',
};

/** What is wrong with a configuration; nothing where it can be loaded. */
export function faultsOf(options: LoadConfigOptions): readonly string[] {
  try {
    loadConfig(options);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.faults;
  }
  return [];
}
