import { pino } from 'pino';
import { loadConfig, requireSection } from '../../../common/config.ts';
import { resolveBaseModel } from '../../../worker/base-model.ts';
import { createObjectStore } from '../../../worker/object-store.ts';

// A process of its own that fetches a base model, to be killed: fetch-model.ts SOURCE CACHE_DIRECTORY
const [source = '', cacheDirectory = ''] = process.argv.slice(2);
await resolveBaseModel(source, {
  cacheDirectory,
  hub: { endpoint: 'http://127.0.0.1:1', token: null },
  store: createObjectStore(requireSection(loadConfig({ env: process.env, roles: ['control'] }), 'storage')),
  logger: pino({ level: 'silent' }),
  signal: new AbortController().signal,
});
