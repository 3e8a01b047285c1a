import type { temporal } from '@temporalio/proto';

type RawEvent = temporal.api.history.v1.IHistoryEvent;

/** What the invariants need of an event of a history. */
export interface HistoryEvent {
  scheduled?: { activity: string; chunk?: Chunk };
  completed?: { activity: string; epoch?: number };
  /** A pod answered for the job. */
  held?: { atMs: number; queue: string };
}

/** Epochs that a pod was told to train. */
export interface Chunk {
  fromEpoch: number;
  untilEpoch: number;
  /** From when until when: while it was not done, or was given up. */
  atMs: number;
  endedAtMs: number;
  /** Its result, if there came one, does not count any more. */
  isCalledOff: boolean;
}

function firstPayload(payloads: { data?: Uint8Array | null }[] | null | undefined): unknown {
  const data = payloads?.[0]?.data;
  return data === undefined || data === null || data.length === 0 ? null : JSON.parse(Buffer.from(data).toString());
}

function timeOf({ eventTime }: RawEvent): number {
  return Number(eventTime?.seconds ?? 0) * 1000 + (eventTime?.nanos ?? 0) / 1e6;
}

/**
 * Reads what was trained and committed from the events of one run.
 *
 * @param known - events of earlier runs, which a reset copies: left out, and added to
 */
export function readHistory(events: readonly RawEvent[], known: Set<string>): HistoryEvent[] {
  const activities = new Map<string, { activity: string; chunk?: Chunk }>();
  const read = events.map((event) => readEvent(event, activities));
  const ids = events.map((event) => `${String(event.eventId)} ${timeOf(event)}`);
  const own = read.filter((_, index) => !known.has(ids[index] ?? ''));
  for (const id of ids) known.add(id);
  return own;
}

function readEvent(event: RawEvent, activities: Map<string, { activity: string; chunk?: Chunk }>): HistoryEvent {
  const scheduled = event.activityTaskScheduledEventAttributes;
  if (scheduled) {
    const activity = scheduled.activityType?.name ?? '';
    const read = { activity, ...(activity === 'trainEpochChunk' && { chunk: readChunk(event) }) };
    activities.set(String(event.eventId), read);
    return { scheduled: read };
  }
  const chunk = activities.get(String(endOf(event)?.scheduledEventId))?.chunk;
  if (chunk !== undefined) chunk.endedAtMs = timeOf(event);
  const calledOff = event.activityTaskCancelRequestedEventAttributes;
  const unwanted = activities.get(String(calledOff?.scheduledEventId))?.chunk;
  if (unwanted !== undefined) unwanted.isCalledOff = true;
  const signalled = event.workflowExecutionSignaledEventAttributes;
  if (signalled?.signalName === 'podHeld') {
    const { queue } = firstPayload(signalled.input?.payloads) as { queue: string };
    return { held: { atMs: timeOf(event), queue } };
  }
  const completed = event.activityTaskCompletedEventAttributes;
  if (!completed) return {};
  const { activity = '' } = activities.get(String(completed.scheduledEventId)) ?? {};
  if (activity !== 'checkpoint') return { completed: { activity } };
  const { checkpoint } = firstPayload(completed.result?.payloads) as { checkpoint: { epoch: number } };
  return { completed: { activity, epoch: checkpoint.epoch } };
}

function readChunk(event: RawEvent): Chunk {
  const input = firstPayload(event.activityTaskScheduledEventAttributes?.input?.payloads) as Partial<Chunk>;
  const { fromEpoch = 0, untilEpoch = 0 } = input;
  return { fromEpoch, untilEpoch, atMs: timeOf(event), endedAtMs: Infinity, isCalledOff: false };
}

/** What says that an activity is over, if the event does. */
function endOf(event: RawEvent) {
  return (
    event.activityTaskCompletedEventAttributes ??
    event.activityTaskFailedEventAttributes ??
    event.activityTaskTimedOutEventAttributes ??
    event.activityTaskCanceledEventAttributes
  );
}

/** Everything in a history that can be read as text, payloads included. */
export function textOf(value: unknown): string {
  if (typeof value === 'string') return value;
  if (value instanceof Uint8Array) return Buffer.from(value).toString('utf8');
  if (typeof value !== 'object' || value === null) return '';
  return Object.values(value).map(textOf).join('\n');
}
