import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parse, stringify } from 'yaml';
import { overlay } from '../../../common/config-source.ts';
import type { Role } from '../../../common/config.ts';
import type { LinkedProcess, World } from './world.ts';

/**
 * Starts a process with settings and a queue of messages of its own beside the others.
 *
 * @param queue - of job messages, for the role `bridge`
 * @param changes - of `temporal.yaml`, beside those that all processes of the world share
 */
export async function startApart(
  world: World,
  roles: readonly Role[],
  queue: string,
  changes: object,
): Promise<LinkedProcess> {
  const { directory } = world.service;
  const shared: unknown = parse(readFileSync(path.join(directory, 'overrides.yaml'), 'utf8'));
  const config = path.join(directory, `${queue}.yaml`);
  writeFileSync(config, stringify(overlay(shared, changes)));
  return world.startProcess(roles, { BRUSHWORK_CONFIG: config, RABBITMQ_QUEUE: queue });
}
