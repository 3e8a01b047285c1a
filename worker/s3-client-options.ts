import type { S3ClientConfig } from '@aws-sdk/client-s3';
import type { StoreConfig } from '../common/config.ts';

const CONNECT_TIMEOUT_MS = 10_000;
const IDLE_TIMEOUT_MS = 60_000;
/** Of one call, the first included. */
export const ATTEMPTS = 3;

const silence = () => undefined;
const SILENT = { trace: silence, debug: silence, info: silence, warn: silence, error: silence };

/**
 * How the S3 client is set up for any S3-compatible store.
 *
 * @param config - endpoint and credentials
 */
export function s3ClientOptions(config: StoreConfig): S3ClientConfig {
  const checksums = config.checksums === 'when-required' ? 'WHEN_REQUIRED' : 'WHEN_SUPPORTED';
  return {
    region: config.region,
    credentials: {
      accessKeyId: config.accessKeyId,
      secretAccessKey: config.secretAccessKey,
      ...(config.sessionToken === null ? {} : { sessionToken: config.sessionToken }),
    },
    // Only AWS resolves bucket names as hosts; every other store is reached by path.
    ...(config.endpoint === null ? {} : { endpoint: config.endpoint, forcePathStyle: true }),
    requestChecksumCalculation: checksums,
    responseChecksumValidation: checksums,
    maxAttempts: ATTEMPTS,
    // Pictures may lie in a bucket of another region.
    followRegionRedirects: true,
    // Without one, the client writes about its retries to standard error.
    logger: SILENT,
    requestHandler: { connectionTimeout: CONNECT_TIMEOUT_MS, socketTimeout: IDLE_TIMEOUT_MS },
  };
}
