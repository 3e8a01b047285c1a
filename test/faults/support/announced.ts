import type { Backend } from '../../../scripts/stack/backend.ts';
import type { JobMessage, TestService } from '../../integration/support/service.ts';
import { eventually } from '../../integration/support/until.ts';

/** Looks at a job's weights in the bucket each time when the backend is told that they are there. */
export class Announced {
  readonly #seen: Promise<Record<string, Buffer>>[] = [];
  /** No more are looked at. */
  readonly stop: () => void;

  constructor(service: TestService, backend: Backend, job: JobMessage) {
    this.stop = backend.onRequest(({ kind, body }) => {
      if (kind !== 'complete' || body?.['style_id'] !== job.styleId) return;
      // The store itself may be what is broken.
      this.#seen.push(eventually(() => service.weightsOf(job)));
    });
  }

  /** Each time, by file name. */
  all(): Promise<Record<string, Buffer>[]> {
    return Promise.all(this.#seen);
  }
}
