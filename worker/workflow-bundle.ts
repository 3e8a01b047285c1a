import { fileURLToPath } from 'node:url';
import { bundleWorkflowCode } from '@temporalio/worker';
import type { WorkflowBundle } from '@temporalio/worker';
import type { Logger } from '../common/logger.ts';
import { temporalLogger } from './runtime.ts';

const WORKFLOWS = fileURLToPath(new URL('../workflows/index.ts', import.meta.url));

/**
 * Bundles the workflow code for the sandbox; takes a few seconds, so it is done once per process.
 *
 * @param logger - told how big it became
 */
export async function bundleWorkflows(logger: Logger): Promise<WorkflowBundle> {
  // webpack's list of modules is of no interest unless it fails.
  const temporal = temporalLogger(logger);
  const quiet = { ...temporal, info: (message: string) => logger.debug(message) };
  return bundleWorkflowCode({ workflowsPath: WORKFLOWS, logger: quiet });
}
