import { INVARIANTS } from './invariants.ts';
import type { Evidence } from './invariants.ts';
import { holdsIn, objectsOf, secretsOf } from './support/evidence.ts';
import type { Scene } from './support/scene.ts';
import type { World } from './support/world.ts';

/** Which invariants are broken, in words. */
export function check(evidence: Evidence): string[] {
  return INVARIANTS.flatMap((invariant, index) =>
    invariant(evidence).map((fault) => `invariant ${index + 1}: ${fault}`),
  );
}

/** Looks at a job once more at the end of everything: nothing may have changed since its end. */
export async function checkAgain(scene: Scene, evidence: Evidence): Promise<string[]> {
  const { backend, job } = scene;
  const requests = backend.requests.filter(({ body }) => body?.['style_id'] === job.styleId);
  const later = await objectsOf(scene);
  const faults = check({
    ...evidence,
    requests,
    zombieWrites: scene.zombieWrites(holdsIn(evidence.events)),
    objects: { ...evidence.objects, later },
  });
  return faults.map((fault) => `later, ${fault}`);
}

/** What processes must not have done: shown a secret, or ended by themselves. */
export function checkProcesses(world: World): string[] {
  return world.workers.flatMap((worker) => {
    const log = worker.log();
    const { exitCode } = worker;
    return [
      ...(secretsOf(world).some((secret) => log.includes(secret))
        ? ['invariant 7: a secret is in the log of a process']
        : []),
      ...(exitCode !== null && exitCode !== 0
        ? [`a process ended by itself with code ${exitCode}:\n${worker.tail()}`]
        : []),
    ];
  });
}
