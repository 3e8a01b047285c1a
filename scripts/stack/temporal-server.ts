import { readFileSync } from 'node:fs';
import path from 'node:path';
import { Connection } from '@temporalio/client';
import { parse } from 'yaml';
import { temporalPath } from '../setup/temporal.mjs';
import { Part } from './part.ts';

/** What the Temporal server is started with. */
export interface TemporalServerOptions {
  /** Holds its database and log. */
  directory: string;
  port: number;
  uiPort: number;
}

/** Names and types of the search attributes, from temporal.yaml. */
export function searchAttributes(): Record<string, string> {
  const file = path.join(import.meta.dirname, '../../temporal.yaml');
  const settings = parse(readFileSync(file, 'utf8')) as { searchAttributes: Record<string, string> };
  return settings.searchAttributes;
}

/** The real Temporal server with its Web UI. Its database is a file, so that a restart forgets nothing. */
export function temporalServer(options: TemporalServerOptions): Part {
  const attributes = searchAttributes();
  const checkHealth = async (): Promise<void> => {
    const connection = await Connection.connect({ address: `127.0.0.1:${options.port}`, connectTimeout: 1000 });
    try {
      await connection.workflowService.describeNamespace({ namespace: 'default' });
      const { customAttributes } = await connection.operatorService.listSearchAttributes({ namespace: 'default' });
      const absent = Object.keys(attributes).filter((name) => customAttributes?.[name] === undefined);
      if (absent.length > 0) throw new Error(`Search attributes are not registered yet: ${absent.join(', ')}.`);
    } finally {
      await connection.close();
    }
  };
  return new Part({
    name: 'temporal',
    command: [
      temporalPath(),
      ...['server', 'start-dev', '--ip', '127.0.0.1', '--log-level', 'warn'],
      ...['--port', String(options.port), '--ui-port', String(options.uiPort)],
      ...['--db-filename', path.join(options.directory, 'temporal.db')],
      ...Object.entries(attributes).flatMap(([name, type]) => ['--search-attribute', `${name}=${type}`]),
    ],
    env: { PATH: process.env['PATH'], HOME: options.directory },
    logDirectory: options.directory,
    checkHealth,
  });
}
