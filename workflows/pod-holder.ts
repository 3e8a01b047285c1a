import { CancellationScope, condition, setHandler, uuid4 } from '@temporalio/workflow';
import type { PodHeld } from '../common/types.ts';
import { PauseRequestedError, PodGoneError, jobFailureOf, podLost } from './failures.ts';
import { podHeldSignal } from './messages.ts';

interface Session {
  holdId: string;
  pod: PodHeld | null;
  /** Ends the session from outside. */
  end: (error: PodGoneError) => void;
}

/** How to take a pod. */
export interface HoldRequest {
  /** Runs `holdPod`; resolves or rejects when the hold is over. */
  hold: (holdId: string) => Promise<void>;
  /** While no pod has answered yet: true gives up waiting for one. */
  paused: () => boolean;
}

/** Takes pods for the job, one at a time. */
export class PodHolder {
  #session: Session | null = null;

  /** Listens to `podHeld`; signals that belong to another hold are ignored. */
  constructor() {
    setHandler(podHeldSignal, (pod) => {
      const session = this.#session;
      if (session === null || session.holdId !== pod.holdId) return;
      if (session.pod === null) session.pod = pod;
      else if (session.pod.queue !== pod.queue) {
        // A reset can re-schedule a hold that had a pod already.
        session.end(new PodGoneError(podLost('Another pod answered for the same hold.')));
      }
    });
  }

  /**
   * Holds a pod, does `work` on it and gives it back. When the hold ends early, everything that runs on the pod is
   * cancelled and left to itself: nobody waits for a dead worker.
   *
   * @param request - how to hold
   * @param work - gets the pod; its activities belong to a scope that ends with the hold
   * @throws PodGoneError when the pod was lost, PauseRequestedError when the job was paused before a pod was found
   */
  async withPod<Result>(request: HoldRequest, work: (pod: PodHeld) => Promise<Result>): Promise<Result> {
    const moved = Promise.withResolvers<never>();
    // It may come when nobody races against it any more.
    moved.promise.catch(() => undefined);
    const session: Session = { holdId: uuid4(), pod: null, end: moved.reject };
    this.#session = session;
    const holdScope = await CancellationScope.nonCancellable(async () => new CancellationScope({ cancellable: true }));
    const workScope = new CancellationScope({ cancellable: true });
    // The hold outlives a cancel of the job: the pod is given back only after its work has confirmed that it stopped.
    const ended = holdScope
      .run(() => request.hold(session.holdId))
      .then(
        () => {
          throw new PodGoneError(podLost('The pod ended its hold.'));
        },
        (error: unknown) => {
          const failure = jobFailureOf(error);
          throw new PodGoneError(failure.kind === 'cancelled' ? podLost('The hold was cancelled.') : failure);
        },
      );
    try {
      await Promise.race([ended, condition(() => session.pod !== null || request.paused())]);
      const { pod } = session;
      if (pod === null) throw new PauseRequestedError();
      return await Promise.race([workScope.run(() => work(pod)), ended, moved.promise]);
    } finally {
      this.#session = null;
      workScope.cancel();
      holdScope.cancel();
    }
  }
}
