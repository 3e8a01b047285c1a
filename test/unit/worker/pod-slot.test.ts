import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import pino from 'pino';
import { PodSlot } from '../../../worker/pod-slot.ts';

const CONTEXT = {
  slotType: 'activity',
  taskQueue: 'brushwork-pods',
  workerIdentity: '1@pod',
  workerBuildId: '',
  isSticky: false,
} as const;
const NEVER = new AbortController().signal;
const RECHECK_MS = 5;

/** Whether a promise has been kept within a moment. */
async function isKept(promise: Promise<unknown>): Promise<boolean> {
  return Promise.race([promise.then(() => true), sleep(10 * RECHECK_MS).then(() => false)]);
}

describe('PodSlot', () => {
  let fault: string | null;
  let lines: { msg: string; fault?: string }[];
  let slot: PodSlot;

  beforeEach(() => {
    fault = null;
    lines = [];
    const logger = pino({}, { write: (line: string) => void lines.push(JSON.parse(line) as (typeof lines)[number]) });
    slot = new PodSlot(async () => fault, logger, RECHECK_MS);
  });

  it('is given to one job at a time', async () => {
    await slot.reserveSlot(CONTEXT, NEVER);
    const second = slot.reserveSlot(CONTEXT, NEVER);
    const third = slot.reserveSlot(CONTEXT, NEVER);
    assert.equal(await isKept(second), false);
    slot.releaseSlot();
    assert.equal(await isKept(second), true);
    assert.equal(await isKept(third), false);
    slot.releaseSlot();
    await third;
    assert.deepEqual(lines, []);
  });

  it('is kept back while the pod can not train, and says why once', async () => {
    fault = 'The disk is full.';
    const reserved = slot.reserveSlot(CONTEXT, NEVER);
    assert.equal(await isKept(reserved), false);
    fault = null;
    assert.equal(await isKept(reserved), true);
    assert.deepEqual(
      lines.map((line) => [line.msg, line.fault]),
      [
        ['pod takes no jobs', 'The disk is full.'],
        ['pod takes jobs again', undefined],
      ],
    );
  });

  for (const [what, begin] of [
    ['is taken', () => slot.reserveSlot(CONTEXT, NEVER)],
    ['is kept back', async () => void (fault = 'The disk is full.')],
  ] as const) {
    it(`can be given up while it ${what}, and is free afterwards`, async () => {
      await begin();
      const leave = new AbortController();
      const reserved = slot.reserveSlot(CONTEXT, leave.signal);
      await sleep(RECHECK_MS);
      leave.abort();
      await assert.rejects(reserved, { name: 'AbortError' });
      fault = null;
      slot.releaseSlot();
      await slot.reserveSlot(CONTEXT, NEVER);
    });
  }

  it('is drained at once while no job has it, though it was asked for one', async () => {
    await slot.reserveSlot(CONTEXT, NEVER);
    assert.equal(await isKept(slot.drain()), true);
    slot.releaseSlot();
    assert.equal(await isKept(slot.reserveSlot(CONTEXT, NEVER)), false);
  });

  it('is drained once its job is over, and given to no other, which may still give up', async () => {
    await slot.reserveSlot(CONTEXT, NEVER);
    slot.markSlotUsed();
    const drained = slot.drain();
    const leave = new AbortController();
    const second = slot.reserveSlot(CONTEXT, leave.signal);
    assert.equal(await isKept(drained), false);
    slot.releaseSlot();
    await drained;
    assert.equal(await isKept(second), false);
    leave.abort();
    await assert.rejects(second, { name: 'AbortError' });
  });

  it('is not lost when it is given up in the moment in which it is free', async () => {
    const leave = new AbortController();
    const reserved = slot.reserveSlot(CONTEXT, leave.signal);
    leave.abort();
    await assert.rejects(reserved, { name: 'AbortError' });
    await slot.reserveSlot(CONTEXT, NEVER);
  });
});
