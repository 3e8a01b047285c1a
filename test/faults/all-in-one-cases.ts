import { until } from '../integration/support/until.ts';
import { fromTheStart } from './fault-case.ts';
import type { FaultCase } from './fault-case.ts';
import { momentOf } from './moments.ts';
import { signal } from './support/processes.ts';
import type { Scene } from './support/scene.ts';
import type { LinkedProcess } from './support/world.ts';

const LEAVE_LIMIT_MS = 15_000;

/** Bridge, control worker and pod in one process, which nobody else can stand in for. */
function start(scene: Scene): Promise<LinkedProcess> {
  const { styleId } = scene.job;
  const queues = { control: `brushwork-${styleId}`, pods: `brushwork-pods-${styleId}` };
  return scene.startApart(['bridge', 'control', 'pod'], { queues });
}

/** How the process ends. */
const ENDINGS: Record<string, { about: string; moments: string[]; end: (process: LinkedProcess) => Promise<void> }> = {
  killed: {
    about: 'SIGKILL of the only process, which has all roles, another one takes over',
    moments: ['train:step', 'checkpoint:data', 'promote:copied', 'notify:begin'],
    end: ({ worker }) => worker.kill(),
  },
  leaves: {
    about: 'SIGTERM of the only process, which has all roles, another one takes over',
    moments: ['train:step'],
    end: async ({ worker }) => {
      signal(worker.pid, 'SIGTERM');
      await until(() => !worker.isRunning, 'the end of the process', LEAVE_LIMIT_MS);
    },
  },
};

/** One process is all there is, and it ends. */
export const allInOne: readonly FaultCase[] = Object.entries(ENDINGS).flatMap(([name, { about, moments, end }]) =>
  moments.map(momentOf).map((moment): FaultCase => {
    const running = new Map<Scene, LinkedProcess>();
    return fromTheStart(`all-in-one-${name}`, moment.name, about, {
      prepare: async (scene) => {
        running.set(scene, await start(scene));
        scene.arm(moment);
      },
      reach: (scene) => scene.reach(moment),
      strike: async (scene, { release }) => {
        const process = running.get(scene);
        if (process === undefined) throw new Error('There is no process.');
        await end(process);
        release();
        await start(scene);
      },
    });
  }),
);
